"""Makes the report of a study from what its evaluations found."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

from experiments.answer import answer
from experiments.config import flat
from experiments.estimate import final, mean_of, pair_of, rate_of_count, steps_to_success, success
from experiments.report import (
    Ceiling,
    Cost,
    Floors,
    Gap,
    Goals,
    Inspected,
    Made,
    Model,
    Pair,
    Planner,
    Protocol,
    Report,
    Row,
    Tflop,
)  # fmt: skip
from experiments.result import COST, FLOORS, Findings, Result
from experiments.study import SIMULATED, Study
from models.checkpoints.config_file import read_model_config

MOST_PAIRED = 4  # of more models, or planners, each is compared with the first only

INTERVAL = (
    "In brackets 95 % intervals: Wilson's for one training seed, a bootstrap over seeds and episodes for several; of "
    "differences on the same episodes, Agresti and Min's for one seed."
)
LATCHED = "An episode is solved if it is inside its success region at the end of any planning iteration."
FINAL = "Final success is being inside the region at the end of the budget, zero actions being executed once solved."
SEED_RULE = "episodes of evaluation seed {seed}, the same for every model, planner and training seed"

Key = tuple[str, str, str]
"""Model, planner and goals of a cell."""


class Builder:
    """Puts the parts of a report together.

    Args:
        study: What was to be done.
        findings: What is known of it.
        is_brief: Whether kinds and horizons of planners and sources of goals are left out, which take long to compose.
    """

    def __init__(self, study: Study, findings: Findings, is_brief: bool = False) -> None:
        self.study, self.config, self.findings, self.is_brief = study, study.config, findings, is_brief
        self.found: dict[Key, list[Result]] = {}
        for result in sorted(findings.results, key=lambda result: result.seed):
            self.found.setdefault((result.model, result.planner, result.goals), []).append(result)
        ceilings = {cell.planner for cell in study.ceilings}
        cells = [(cell.model, cell.planner, cell.goals) for cell in study.cells if cell.planner not in ceilings]
        self.rows = [self._row(*key) for key in cells if key in self.found]

    def report(self, made: Made, unfinished: Sequence[str] = (), **more: Any) -> Report:
        """Make the report; ``more``: its commands and inputs."""
        goals = {name: self._goals(name) for name in self.config.goals}
        planners = {name: self._planner(name) for name in dict.fromkeys(row.planner for row in self.rows)}
        pairs = [*self._factor_pairs(), *self._model_pairs(), *self._planner_pairs()]
        env, seed = self.config.env, self.config.goals_seed
        known = [r.unsolved_starts_only for r in self.findings.results if r.unsolved_starts_only is not None]
        return Report(
            title=self.config.title or f"Planning on {env}: {_few(self.config.models)}",
            asked=self.config.asked or f"Which of {_few(self.config.models)} solves more, and with which planner?",
            answer=answer(self.rows, pairs, goals, planners),
            unfinished=list(unfinished),
            made=made,
            protocol=Protocol(
                env=env,
                seed=seed,
                seed_rule=SEED_RULE.format(seed=seed),
                unsolved_starts_only=known[0] if known and len(set(known)) == 1 else None,
                interval=INTERVAL,
                latched=LATCHED,
                final=FINAL,
            ),
            goals=goals,
            models={name: self._model(name) for name in self.config.models},
            planners=planners,
            rows=self.rows,
            pairs=pairs,
            gap=self._gap(),
            why=self.findings.why,
            inspect=[
                Inspected(model=r.model, planner=r.planner, goals=r.goals, seed=r.seed, folder=r.folder)
                for r in self.findings.results
                if r.folder is not None and r.planner in planners
            ],
            **more,
        )

    def _row(self, model: str, planner: str, goals: str) -> Row:
        own = self.found[model, planner, goals]
        return Row(
            model=model,
            planner=planner,
            goals=goals,
            seeds=[result.seed for result in own],
            episodes=own[0].count,
            success=success(own),
            final=final(own),
            steps_to_success=steps_to_success(own),
            cost=_cost(own),
            floors=self._floors(own[0]),
        )

    def _floors(self, result: Result) -> Floors:
        if not self.config.floors:
            return Floors()
        known = {name: rate_of_count(result.floors[name], result.count) for name in FLOORS if name in result.floors}
        return Floors(**known)

    def _goals(self, name: str) -> Goals:
        own = [result for key, results in self.found.items() if key[2] == name for result in results]
        longest = max(own, key=lambda result: (result.count, result.budget_steps or 0), default=None)
        source, away = None, None
        if not self.is_brief:
            plan = self.study.composed(next(iter(self.study.planners)), name)
            source, away = plan.goal_source, plan.goal_H if plan.goal_source in ("dset", "random_action") else None
        frameskip = self._frameskip()
        ceilings = [
            Ceiling(
                planner=cell.planner.removesuffix(SIMULATED.format(planner="")),
                model=cell.model,
                success=success(self.found[cell.model, cell.planner, name]),
                episodes=cell.n_evals,
            )
            for cell in self.study.ceilings
            if cell.goals == name and (cell.model, cell.planner, name) in self.found
        ]
        return Goals(
            goal_source=source,
            goal_H=away,
            raw_steps=away * frameskip if away and frameskip else None,
            budget_steps=longest.budget_steps if longest else None,
            episodes=longest.count if longest else self.config.n_evals,
            hash=longest.episodes if longest else None,
            floors=self._floors(longest) if longest else Floors(),
            ceilings=ceilings,
            control=self.config.controls.get(name),
        )

    def _frameskip(self) -> int | None:
        """Raw steps of a block, as a checkpoint that is there says it."""
        for model in self.config.models:
            path = self.study.checkpoint(model, self.config.seeds_of(model)[0]) / "hydra.yaml"
            if path.exists():
                value = read_model_config(path).get("frameskip")
                return value if isinstance(value, int) else None
        return None

    def _model(self, name: str) -> Model:
        chosen, seeds = self.config.models[name], self.config.seeds_of(name)
        seen = sorted({result.seed for result in self.findings.results if result.model == name})
        paths = [str(self.study.checkpoint(name, seed)) for seed in seeds]
        trained = None if chosen.overrides is None else flat(chosen.overrides)
        return Model(base=chosen.base, seeds=seen or seeds, checkpoints=paths, trained_by=trained)

    def _planner(self, name: str) -> Planner:
        curve, budget = self.config.points().get(name, (None, None))
        overrides = self.study.planners[name]
        if self.is_brief:
            return Planner(overrides=overrides, curve=curve, budget=budget)
        loop = self.study.composed(name).planner.settings
        horizon = loop.get("sub_planner", loop).get("horizon")
        kind = self.study.kind(name)
        return Planner(overrides=overrides, kind=kind, horizon=horizon, curve=curve, budget=budget)

    def _model_pairs(self) -> list[Pair]:
        points = self.config.points()
        planners = [name for name in dict.fromkeys(row.planner for row in self.rows) if name not in points]
        names = self._pairs(self.config.compare, list(self.config.models))
        return self._compared("models", names, planners, lambda model, planner, goals: (model, planner, goals))

    def _planner_pairs(self) -> list[Pair]:
        names = self._pairs(self.config.compare_planners, list(self.config.planners))
        models = list(self.config.models)
        return self._compared("planners", names, models, lambda planner, model, goals: (model, planner, goals))

    def _compared(
        self, of: str, names: Sequence[tuple[str, str]], shared: Sequence[str], key: Callable[[str, str, str], Key]
    ) -> list[Pair]:
        """Compare each two of ``names`` with each of ``shared``, as far as the cells of both are known."""
        pairs = []
        for (a, b), goals, with_ in itertools.product(names, self.config.goals, shared):
            first, second = (self.found.get(key(name, with_, goals)) for name in (a, b))
            if first and second and self._fit(first, second):
                pairs.append(pair_of(of, (a, b), with_, goals, first, second))
        return pairs

    def _factor_pairs(self) -> list[Pair]:
        """Every variation against none, with the same planner and model."""
        return [
            pair_of(
                "factors", (name, control), f"{planner}, {model}", control, varied, self.found[model, planner, control]
            )
            for name, control in self.config.controls.items()
            for (model, planner, goals), varied in self.found.items()
            if goals == name and (model, planner, control) in self.found
            if planner in {row.planner for row in self.rows}
            if self._fit(varied, self.found[model, planner, control])
        ]

    def _pairs(self, chosen: Sequence[Sequence[str]] | None, names: Sequence[str]) -> list[tuple[str, str]]:
        if chosen is not None:
            return [(pair[0], pair[1]) for pair in chosen]
        if len(names) > MOST_PAIRED:
            return [(name, names[0]) for name in names[1:]]
        return [(b, a) for a, b in itertools.combinations(names, 2)]

    def _fit(self, first: Sequence[Result], second: Sequence[Result]) -> bool:
        """Whether two cells know the same seeds yet, or one of them is of a checkpoint that has no others."""
        if [result.seed for result in first] == [result.seed for result in second]:
            return True
        given = [self.config.models[results[0].model].ckpt_path for results in (first, second)]
        return any(paths is not None and len(paths) == 1 for paths in given)

    def _gap(self) -> list[Gap]:
        gaps = []
        for base, models in self.findings.errors.items():
            for model, found in models.items():
                at = {where: mean_of(table) for where, table in found.items()}
                gaps.append(Gap(model=model, base=base, **at, ratio=at["planner"].mean / at["dataset"].mean))
        return gaps


def _cost(results: Sequence[Result]) -> Cost:
    """Means over seeds; of what a seed does not know, nothing is known."""
    mean: dict[str, Any] = {}
    for key in COST:
        values = [value for result in results if (value := result.cost.get(key)) is not None]
        mean[key] = fmean(values) if len(values) == len(results) else None
    parts = {part: mean.pop(f"tflop_{part}") for part in ("encoder", "forward", "backward")}
    return Cost(tflop=Tflop(**parts, total=mean.pop("tflop")), **mean)


def _few(names: Iterable[str]) -> str:
    chosen = list(names)
    return ", ".join(chosen if len(chosen) <= MOST_PAIRED else [*chosen[:2], "...", chosen[-1]])
