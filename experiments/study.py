"""The jobs of a study: one data set, trainings for every training seed, evaluations, and the error of every model."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import stages
from experiments.config import Cells, StudyConfig, file_name, flat
from launch.job import Job
from planning.config import PlanConfig
from planning.mpc import MPCController
from planning.planners.searchless import PolicyPlanner, RandomPlanner

SIMULATED = "{planner}, the simulator as its model"
"""Name of a planner whose success is a ceiling."""


@dataclass(frozen=True)
class Cell:
    """One evaluation: of a model, with a planner, on the first ``n_evals`` episodes of a set of goals."""

    model: str
    planner: str
    goals: str
    n_evals: int
    is_ceiling: bool = False


class Study:
    """All jobs of a config.

    Args:
        config: Of the study.
        config_dir: A further folder of configs and options, that of ``--config-dir``.
    """

    def __init__(self, config: StudyConfig, config_dir: str | None = None) -> None:
        self.config, self.folder = config, Path(config.folder)
        self.added = {"config_dir": config_dir} if config_dir else {}
        self.data = self.folder / "data"
        self.planners = config.all_planners()
        cells = [cell for cells in config.all_cells() for cell in self._cells(cells)]
        self.cells = list(dict.fromkeys(cells))

    @functools.cached_property
    def ceilings(self) -> list[Cell]:
        """Evaluations with the simulator as the model; their planners join the others when this is asked for."""
        return list(self._ceilings()) if self.config.ceiling else []

    def _cells(self, cells: Cells) -> Iterator[Cell]:
        for goals in cells.goals or self.config.goals:
            for planner in cells.planners:
                for model in cells.models:
                    yield Cell(model, planner, goals, cells.n_evals or self.config.n_evals)

    def _ceilings(self) -> Iterator[Cell]:
        """The searching planners with the simulator as their model, which the first model only sees with."""
        used = dict.fromkeys(cell.planner for cell in self.cells)
        kinds = {name: self.kind(name) for name in used if name not in self.config.points()}
        chosen = [name for name, kind in kinds.items() if kind == "search" and not self._simulates(name)]
        if not chosen and not any(map(self._simulates, used)):
            is_mpc = any(isinstance(self.loop(name), MPCController) for name in kinds)
            chosen = ["mpc_cem" if is_mpc else "cem"]
            self.planners.setdefault(chosen[0], [f"planner={chosen[0]}"])
        evals = min(self.config.ceiling_evals, self.config.n_evals)
        model = self.cells[0].model
        for goals in self.config.goals:
            for planner in chosen:
                name = SIMULATED.format(planner=planner)
                self.planners[name] = [*self.planners[planner], "dynamics=simulator", "n_plot_samples=0"]
                yield Cell(model, name, goals, evals, is_ceiling=True)

    def _simulates(self, planner: str) -> bool:
        return "dynamics=simulator" in self.planners[planner]

    @functools.cache  # noqa: B019  (a study lives as long as its process)
    def composed(self, planner: str, goals: str | None = None) -> PlanConfig:
        """The settings of an evaluation, but for the model."""
        first = goals or next(iter(self.config.goals))
        overrides = [*self.settings(planner, first), "ckpt_path=unused", "run_dir=unused"]
        return stages.composed(PlanConfig, self.plan_config, overrides, **self.added)

    def loop(self, planner: str) -> Any:
        """Build a planner, or the loop around one."""
        return self.composed(planner).planner.build()

    @functools.cache  # noqa: B019
    def kind(self, planner: str) -> str:
        """How it plans: "gradient", "search", "policy" or "random"."""
        inner = MPCController.of(self.loop(planner)).planner
        if isinstance(inner, PolicyPlanner | RandomPlanner):
            return "policy" if isinstance(inner, PolicyPlanner) else "random"
        return "gradient" if inner.differentiates else "search"

    @property
    def plan_config(self) -> str:
        """Name of the config that evaluations are composed from."""
        return stages.plan_config(self.config.env)

    def jobs(self) -> list[Job]:
        """List the jobs in the order in which they should start: a model is evaluated as soon as it is trained.

        Raises:
            ValueError: If names of models, planners and goals would give two jobs the same name.
        """
        jobs = []
        if self.config.collect is not None:
            collect = {"overrides": [*flat(self.config.collect), f"data_path={self.data}"]}
            jobs.append(Job("collect", stages.collect, collect, label="collect"))
        numbers = dict.fromkeys(seed for model in self.config.models for seed in self.config.seeds_of(model))
        for seed in numbers:
            for model in self.config.models:
                if seed in self.config.seeds_of(model):
                    if self.config.models[model].overrides is not None:
                        jobs.append(self._training(model, seed))
                    jobs += [self._evaluation(cell, seed) for cell in self.cells if cell.model == model]
            for base, models in self.finetuned().items():
                if self.config.gap_planner and seed in self.config.seeds_of(models[0]):
                    jobs.append(self._gap(base, seed))
        jobs += [self._evaluation(cell, self.config.seeds_of(cell.model)[0]) for cell in self.ceilings]
        if self.config.why_evals:
            jobs += [self._diagnosis(cell, self.config.seeds_of(cell.model)[0]) for cell in self.diagnosed()]
        if self.config.inspect_evals:
            jobs += [self._inspection(cell, self.config.seeds_of(cell.model)[0]) for cell in self.diagnosed()]
        _refuse_same_names(jobs)
        return jobs

    def diagnosed(self) -> list[Cell]:
        """Evaluations of which it can be said why they failed: where a model took part, of the first seed."""
        return [cell for cell in self.cells if not self._simulates(cell.planner)]

    def finetuned(self) -> dict[str, list[str]]:
        """Bases with the models that were finetuned from them."""
        found: dict[str, list[str]] = {}
        for name, model in self.config.models.items():
            if model.base is not None:
                found.setdefault(model.base, []).append(name)
        return found

    def name(self, cell: Cell, seed: int) -> str:
        """Name a cell's job and its folder."""
        goals = f"_{file_name(cell.goals)}" if len(self.config.goals) > 1 else ""
        return f"{self.training(cell.model, seed)}_{file_name(cell.planner)}{goals}"

    def training(self, model: str, seed: int) -> str:
        """Name of a training's job and of its folder."""
        return f"{file_name(model)}_s{seed}"

    def checkpoint(self, model: str, seed: int) -> Path:
        """The model directory of a training seed, of which a checkpoint that is there alone has one for all."""
        given = self.config.models[model].ckpt_path
        if given is None:
            return self.folder / self.training(model, seed)
        return Path(given[seed if len(given) > 1 else 0])

    def gap(self, base: str, seed: int) -> str:
        """Name of the job that measures the error of a base and of what was finetuned from it."""
        return f"gap_{self.training(base, seed)}"

    def _after(self, model: str, seed: int) -> list[str]:
        """What must be done before a model can be used."""
        if self.config.models[model].overrides is not None:
            return [self.training(model, seed)]
        return ["collect"] if self.config.collect is not None else []

    def _data(self) -> list[str]:
        return [f"env.dataset.data_path={self.data}"] if self.config.collect is not None else []

    def _training(self, model: str, seed: int) -> Job:
        chosen, name = self.config.models[model], self.training(model, seed)
        begins_with = self.folder / name if chosen.base is None else self.checkpoint(chosen.base, seed)
        overrides = [*flat(chosen.overrides), *self._data(), f"training.seed={seed}"]
        overrides += ["num_threads=1", f"ckpt_path={begins_with}", f"run_dir={self.folder / name}"]
        after = self._after(chosen.base, seed) if chosen.base else ["collect"] if self._data() else []
        return Job(name, stages.train, {"overrides": overrides, **self.added}, after, label=f"train {model}")

    def _evaluation(self, cell: Cell, seed: int) -> Job:
        name = self.name(cell, seed)
        overrides = [*self.settings(cell.planner, cell.goals), f"n_evals={cell.n_evals}"]
        overrides += [f"ckpt_path={self.checkpoint(cell.model, seed)}", f"run_dir={self.folder / name}"]
        arguments = {"config_name": self.plan_config, "overrides": overrides, **self.added}
        label = f"evaluate {cell.planner} {cell.goals}"
        return Job(name, stages.evaluate, arguments, self._after(cell.model, seed), label=label)

    def why(self, cell: Cell, seed: int) -> str:
        """Name the job that diagnoses an evaluation."""
        return f"why_{self.name(cell, seed)}"

    def _diagnosis(self, cell: Cell, seed: int) -> Job:
        """Diagnose beside the other planners with the same model, whose plans may be better."""
        own, key = self.name(cell, seed), (cell.model, cell.goals, cell.n_evals)
        alike = [other for other in self.diagnosed() if (other.model, other.goals, other.n_evals) == key]
        others = [name for other in alike if (name := self.name(other, seed)) != own]
        arguments = {
            "run_folder": str(self.folder / own),
            "beside": [str(self.folder / name) for name in others],
            "episodes": max(3, self.config.why_evals),
            "settings": ["num_threads=1", *self._data()],
        }
        return Job(self.why(cell, seed), stages.diagnose, arguments, [own, *others], label="why")

    def _inspection(self, cell: Cell, seed: int) -> Job:
        own = self.name(cell, seed)
        arguments = {
            "run_folder": str(self.folder / own),
            "episodes": min(self.config.inspect_evals, cell.n_evals),
            "settings": ["num_threads=1", *self._data()],
        }
        return Job(f"inspect_{own}", stages.inspect, arguments, [own], label="inspect")

    def settings(self, planner: str, goals: str) -> list[str]:
        """Overrides of an evaluation, but for model, episodes and folder."""
        fixed = [f"seed={self.config.goals_seed}", "num_threads=1", *self._data(), *flat(self.config.goals[goals])]
        env = [f"env={self.config.env}"] if self.plan_config == "plan" else []
        return [*env, *flat(self.config.evaluate), *fixed, *self.planners[planner]]

    def _gap(self, base: str, seed: int) -> Job:
        models = [base, *self.finetuned()[base]]
        assert self.config.gap_planner is not None
        settings = self.settings(self.config.gap_planner, next(iter(self.config.goals)))
        arguments = {
            "models": {model: str(self.checkpoint(model, seed)) for model in models},
            "planned_by": base,
            "config_name": self.plan_config,
            "overrides": [*settings, "ckpt_path=unused", "run_dir=unused"],
            "num_tasks": self.config.gap_tasks,
            "seed": self.config.goals_seed,
            **self.added,
        }
        after = [name for model in models for name in self._after(model, seed)]
        return Job(self.gap(base, seed), stages.measure_gap, arguments, after, label="gap")


def _refuse_same_names(jobs: Sequence[Job]) -> None:
    """Stages are kept under their names, which are put together of those that the user gave."""
    known: set[str] = set()
    for job in jobs:
        if job.name in known:
            raise ValueError(f"two stages would be called {job.name} and use the same files: rename a model or planner")
        known.add(job.name)
