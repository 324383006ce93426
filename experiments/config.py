"""What a study compares; the comments of ``conf/compare.yaml`` say what each setting means."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from utils.ranges import Count, CountOrZero, Processes, Seed
from utils.schema import OpenSettings, Settings

Overrides = Sequence[str | Sequence[str]]
"""Overrides of a command; an interpolated list within a list stands for its items."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """One model of a study: checkpoints that are there, or what trains it.

    Attributes:
        ckpt_path: Model directories, one for each training seed.
        base: The model that it is finetuned from; None: trained from scratch.
        overrides: Of ``train.py``.
    """

    ckpt_path: Sequence[str] | None = None
    base: str | None = None
    overrides: Overrides | None = None


@dataclass(frozen=True, kw_only=True)
class Cells(Settings):
    """Which models are evaluated with which planners.

    Attributes:
        models: Their names.
        planners: Their names.
        goals: Names of sets of goals; None: all.
        n_evals: Episodes, the first so many; None: those of the study.
    """

    models: Sequence[str]
    planners: Sequence[str]
    goals: Sequence[str] | None = None
    n_evals: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Curve(Settings):
    """A planner with several budgets.

    Attributes:
        overrides: Of ``plan.py``.
        evals: Budget (rollouts that a plan may take) -> further overrides.
    """

    overrides: Overrides
    evals: Mapping[Any, Overrides]


@dataclass(frozen=True, kw_only=True)
class Budgets(Settings):
    """Success against cost: which models, with which planners at which budgets."""

    models: Sequence[str] | None = None
    planners: Mapping[str, Curve]


@dataclass(frozen=True, kw_only=True)
class StudyConfig(OpenSettings):
    """A whole study, as ``experiments.shorthand`` completes it.

    Attributes:
        name: Of the config.
        env: Its ``plan_<env>.yaml`` plans.
        title, asked: What the report begins with.
        folder: Where everything goes.
        seeds: Training seeds to run now; each is a stage of its own.
        goals_seed: Of the evaluations: the same episodes for every model, planner and training seed.
        n_evals: Episodes of an evaluation.
        num_workers: Jobs at a time; None: one per GPU, or per core, at most 3.
        publish: Whether the outcomes go into ``docs/published`` and the page.
        collect: Overrides of ``python -m datasets.collect``; None: the data are there.
        models: By name.
        planners: Overrides of ``plan.py``, by name.
        goals: Overrides of ``plan.py`` that say where goals come from, by name.
        controls: Goals that are others with a variation -> the name of those others.
        evaluate: Overrides that all evaluations share.
        budgets: Planners of which each budget is one more planner; of all models, if none are named.
        cells: What is evaluated, by the question that it answers; None: every model with every planner.
        floors: Whether tables show what doing nothing, random and recorded actions solve.
        ceiling: Whether search is evaluated with the simulator as its model, too.
        ceiling_evals: On how many of the episodes.
        gap_planner: Whose plans the error of finetuned models and their bases is measured on; None: not measured.
        gap_tasks: Trajectories on which it is measured.
        why_evals: How many episodes of every evaluation are diagnosed; 0: none.
        inspect_evals: How many are drawn for the page's plan inspector; 0: none.
        compare: Pairs of models, the second taken from the first; None: all with each other, of many each with the
            first.
        compare_planners: Pairs of planners likewise, which meet the same episodes as far as both go.
    """

    name: str
    env: str
    title: str | None = None
    asked: str | None = None
    folder: str
    seeds: Sequence[Seed]
    goals_seed: Seed
    n_evals: Count
    num_workers: Processes | None
    publish: bool
    collect: Overrides | None = None
    models: Mapping[str, ModelConfig]
    planners: Mapping[str, Overrides]
    goals: Mapping[str, Overrides]
    controls: Mapping[str, str] = field(default_factory=dict)
    evaluate: Overrides
    budgets: Budgets | None = None
    cells: Mapping[str, Cells] | None = None
    floors: bool
    ceiling: bool
    ceiling_evals: Count
    gap_planner: str | None = None
    gap_tasks: Count
    why_evals: CountOrZero
    inspect_evals: CountOrZero
    compare: Sequence[Sequence[str]] | None = None
    compare_planners: Sequence[Sequence[str]] | None = None

    def __post_init__(self) -> None:
        """Refuse names that nothing has, and what could not be kept or compared once it has run.

        Raises:
            ValueError: Naming the key, the value and what is allowed.
        """
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be at least one, each once, got {list(self.seeds)}")
        for key in ("models", "planners"):
            if not getattr(self, key):
                raise ValueError(f"{key}: there must be one at least")
        models, planners = set(self.models), set(self.planners)
        for name, model in self.models.items():
            _refuse_unknown(f"models.{name}.base", [model.base] if model.base else [], models - {name})
            if (model.ckpt_path is None) == (model.overrides is None):
                raise ValueError(f"models.{name}: give either ckpt_path, or overrides of train.py that train it")
        for name, cells in (self.cells or {}).items():
            _refuse_unknown(f"cells.{name}.models", cells.models, models)
            _refuse_unknown(f"cells.{name}.planners", cells.planners, planners)
            _refuse_unknown(f"cells.{name}.goals", cells.goals or [], set(self.goals))
        if self.budgets is not None:
            _refuse_unknown("budgets.models", self.budgets.models or [], models)
        _refuse_unknown("gap_planner", [self.gap_planner] if self.gap_planner else [], planners)
        for key, known in (("compare", models), ("compare_planners", planners)):
            for pair in getattr(self, key) or []:
                _refuse_unknown(key, pair, known)
                if len(pair) != 2:
                    raise ValueError(f"{key} must be pairs of names, got {list(pair)}")
        self._refuse_circles()
        self._refuse_seeds()
        self._refuse_two_lengths()
        for key, names in (("models", self.models), ("planners", self.all_planners()), ("goals", self.goals)):
            _refuse_same_file(key, names)

    def all_planners(self) -> dict[str, list[str]]:
        """Overrides of every planner, those with a budget among them."""
        found = {}
        for name, overrides in self.planners.items():
            own = flat(overrides)
            found[name] = own if any(text.startswith("planner=") for text in own) else [f"planner={name}", *own]
        for name, (curve, budget) in self.points().items():
            assert self.budgets is not None
            of = self.budgets.planners[curve]
            more = next(overrides for key, overrides in of.evals.items() if int(key) == budget)
            found[name] = [*flat(of.overrides), f"planner.sub_planner.budget_evals={budget}", *flat(more)]
        return found

    def points(self) -> dict[str, tuple[str, int]]:
        """Name of every planner with a budget -> its curve and the budget."""
        curves = self.budgets.planners if self.budgets is not None else {}
        return {f"{name} {int(key)}": (name, int(key)) for name, curve in curves.items() for key in curve.evals}

    def all_cells(self) -> Iterator[Cells]:
        """What is evaluated, in the order of the tables."""
        everything = {"all": Cells(models=list(self.models), planners=list(self.planners))}
        yield from (self.cells if self.cells is not None else everything).values()
        if self.budgets is not None:
            yield Cells(models=self.budgets.models or list(self.models), planners=list(self.points()))

    def seeds_of(self, model: str) -> list[int]:
        """Training seeds of a model; for checkpoints that are there, their numbers from 0."""
        chosen = self.models[model]
        return list(self.seeds) if chosen.ckpt_path is None else list(range(len(chosen.ckpt_path)))

    def _refuse_circles(self) -> None:
        """A model that waits for itself would never be trained."""
        for name in self.models:
            line = [name]
            while (base := self.models[line[-1]].base) is not None:
                if base in line:
                    raise ValueError(
                        f"models.{name}.base: {' <- '.join([*line, base])} is a circle; train one from scratch"
                    )
                line.append(base)

    def _refuse_seeds(self) -> None:
        """Models are compared seed by seed."""
        several = {name: len(seeds) for name in self.models if len(seeds := self.seeds_of(name)) > 1}
        if len(set(several.values())) > 1:
            counts = ", ".join(f"{name} has {count}" for name, count in several.items())
            raise ValueError(f"models: {counts} training seeds; each needs as many, or one")

    def _refuse_two_lengths(self) -> None:
        """Models are compared on all episodes of a planner, so these must be as many for each."""
        lengths: dict[tuple[str, str], int] = {}
        for name, cells in (self.cells or {}).items():
            n_evals = cells.n_evals or self.n_evals
            for key in itertools.product(cells.planners, cells.goals or self.goals):
                if lengths.setdefault(key, n_evals) != n_evals:
                    raise ValueError(
                        f"cells.{name}.n_evals: {key[0]!r} has {n_evals} episodes here and {lengths[key]} in other "
                        "cells; give one of them another name in planners"
                    )


def flat(overrides: Overrides | None) -> list[str]:
    """List overrides one by one."""
    return [text for each in overrides or () for text in ([each] if isinstance(each, str) else each)]


def file_name(name: str) -> str:
    """Name of a model, a planner or goals in names of files."""
    return "".join(c if c.isalnum() else "_" for c in name)


def _refuse_same_file(key: str, names: Iterable[str]) -> None:
    known: dict[str, str] = {}
    for name in names:
        if "|" in name:
            raise ValueError(f"{key}: {name!r} must not have a bar, which separates the columns of the outcomes")
        if (other := known.setdefault(file_name(name), name)) != name:
            raise ValueError(f"{key}: {other!r} and {name!r} would use the same files; rename one")


def _refuse_unknown(key: str, names: Sequence[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{key}: there is no {name!r}; there are {', '.join(sorted(known))}")
