"""The jobs of a study: one data set, trainings for every training seed, evaluations, and the error of every model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments import stages
from experiments.config import Cells, StudyConfig, file_name, flat
from launch.jobs import Job

GAP_TASKS = 50  # trajectories on which the error of a model is measured


@dataclass(frozen=True)
class Cell:
    """One evaluation: of a model, with a planner, on the first ``n_evals`` episodes."""

    model: str
    planner: str
    n_evals: int

    def name(self, seed: int) -> str:
        """Name its job and its folder."""
        return f"{file_name(self.model)}_s{seed}_{file_name(self.planner)}"


class Study:
    """All jobs of a config.

    Args:
        config: ``conf/recipe_<env>.yaml``.
    """

    def __init__(self, config: StudyConfig) -> None:
        self.config, self.folder = config, Path(config.folder)
        self.data = self.folder / "data"
        self.cells = list(dict.fromkeys(cell for cells in config.cells.values() for cell in self._cells(cells)))

    def _cells(self, cells: Cells) -> Iterator[Cell]:
        for planner in cells.planners:
            for model in cells.models:
                yield Cell(model, planner, cells.n_evals or self.config.n_evals)

    def jobs(self) -> list[Job]:
        """List the jobs in the order in which they should start: one seed after the other, trainings first."""
        jobs = [Job("collect", stages.collect, {"overrides": [*flat(self.config.collect), f"data_path={self.data}"]})]
        for seed in self.config.seeds:
            jobs += [self._training(model, seed) for model in self.config.models]
            jobs += [self._evaluation(cell, seed) for cell in self.cells]
            jobs += [self._gap(base, seed) for base in self.finetuned()]
        return jobs

    def finetuned(self) -> dict[str, list[str]]:
        """Bases with the models that were finetuned from them."""
        found: dict[str, list[str]] = {}
        for name, model in self.config.models.items():
            if model.base is not None:
                found.setdefault(model.base, []).append(name)
        return found

    def training(self, model: str, seed: int) -> str:
        """Name of a training's job and of its folder."""
        return f"{file_name(model)}_s{seed}"

    def gap(self, base: str, seed: int) -> str:
        """Name of the job that measures the error of a base and of what was finetuned from it."""
        return f"gap_{self.training(base, seed)}"

    def _training(self, model: str, seed: int) -> Job:
        chosen, name = self.config.models[model], self.training(model, seed)
        begins_with = name if chosen.base is None else self.training(chosen.base, seed)
        overrides = [*flat(chosen.overrides), f"env.dataset.data_path={self.data}", f"training.seed={seed}"]
        overrides += ["num_threads=1", f"ckpt_path={self.folder / begins_with}", f"run_dir={self.folder / name}"]
        after = ["collect"] if chosen.base is None else [begins_with]
        return Job(name, stages.train, {"overrides": overrides}, after)

    def _evaluation(self, cell: Cell, seed: int) -> Job:
        trained, name = self.training(cell.model, seed), cell.name(seed)
        overrides = [*self._settings(cell.planner), f"n_evals={cell.n_evals}", f"ckpt_path={self.folder / trained}"]
        arguments = {
            "config_name": f"plan_{self.config.env}",
            "overrides": [*overrides, f"run_dir={self.folder / name}"],
        }
        return Job(name, stages.evaluate, arguments, [trained])

    def _settings(self, planner: str) -> list[str]:
        fixed = [f"seed={self.config.goals_seed}", "num_threads=1", f"env.dataset.data_path={self.data}"]
        return [*flat(self.config.evaluate), *fixed, *flat(self.config.planners[planner])]

    def _gap(self, base: str, seed: int) -> Job:
        models = [base, *self.finetuned()[base]]
        arguments = {
            "models": {model: str(self.folder / self.training(model, seed)) for model in models},
            "planned_by": base,
            "config_name": f"plan_{self.config.env}",
            "overrides": [*self._settings(self.config.gap_planner), "ckpt_path=unused", "run_dir=unused"],
            "num_tasks": GAP_TASKS,
            "seed": self.config.goals_seed,
        }
        return Job(self.gap(base, seed), stages.measure_gap, arguments, [self.training(m, seed) for m in models])
