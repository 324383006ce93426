"""What the study runs: trainings per seed, every planner on every model, and success at equal budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import stages
from launch.jobs import Job

GOALS_SEED = 99  # of the evaluations: the same goals for every training seed


@dataclass(frozen=True)
class Run:
    """One evaluation of the study.

    Attributes:
        model, seed: Which training.
        planner: As in the config.
        budget: Rollouts per plan, None in the main table.
    """

    model: str
    seed: int
    planner: str
    budget: int | None = None

    @property
    def name(self) -> str:
        """Name its job and its folder."""
        planner = "".join(c if c.isalnum() else "_" for c in self.planner)
        return f"{self.model}_s{self.seed}_{planner}" + (f"_{self.budget}" if self.budget else "")


class Study:
    """All jobs of a config.

    Args:
        config: ``conf/results_<env>.yaml``, composed, as plain data.
        folder: Where everything goes.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self.config, self.folder = config, folder
        self.finetuned = [name for name in config["finetune"] if name != "common"]
        self.models = ["base", *self.finetuned]
        self.seeds: list[int] = config["seeds"]
        self.planners: dict[str, list[str]] = config["evaluate"]["planners"]
        self.table = [Run(m, s, p) for s in self.seeds for m in self.models for p in self.planners]
        self.curve = [
            Run(model, seed, planner, budget)
            for seed in self.seeds
            for model in config["budgets"]["models"]
            for planner, setting in config["budgets"]["planners"].items()
            for budget in setting["evals"]
        ]

    def jobs(self) -> list[Job]:
        """List the jobs in the order of their start: the main table before the curve, one seed after the other."""
        data = self.folder / "data"
        collect = {"overrides": [*self.config["collect"], f"data_path={data}"]}
        jobs = [Job("collect", stages.collect, collect)]
        for seed in self.seeds:
            jobs += self._trainings(seed)
        return [
            *jobs,
            *(self._gap(seed) for seed in self.seeds),
            *(self._evaluation(run) for run in (*self.table, *self.curve)),
        ]

    def training(self, model: str, seed: int) -> str:
        """Name of a training's job and of its folder."""
        return f"{model}_s{seed}"

    def _trainings(self, seed: int) -> list[Job]:
        fixed = [f"env.dataset.data_path={self.folder / 'data'}", f"training.seed={seed}", "num_threads=1"]
        base = self.folder / self.training("base", seed)
        pretrain = [*self.config["pretrain"], *fixed, f"ckpt_path={base}", f"run_dir={base}"]
        jobs = [Job(base.name, stages.train, {"overrides": pretrain}, ["collect"])]
        for model in self.finetuned:
            own = _flat(self.config["finetune"][model])
            run_dir = self.folder / self.training(model, seed)
            overrides = [*self.config["finetune"]["common"], *own, *fixed, f"ckpt_path={base}", f"run_dir={run_dir}"]
            jobs.append(Job(run_dir.name, stages.train, {"overrides": overrides}, [base.name]))
        return jobs

    def _evaluation(self, run: Run) -> Job:
        trained = self.training(run.model, run.seed)
        overrides = [*self._settings(run), f"ckpt_path={self.folder / trained}", f"run_dir={self.folder / run.name}"]
        arguments = {"config_name": f"plan_{self.config['env']}", "overrides": overrides}
        return Job(run.name, stages.evaluate, arguments, [trained])

    def _settings(self, run: Run) -> list[str]:
        common = [*self.config["evaluate"]["common"], f"n_evals={self.config['n_evals']}", f"seed={GOALS_SEED}"]
        common += ["num_threads=1", f"env.dataset.data_path={self.folder / 'data'}"]
        if run.budget is None:
            own = _flat(self.planners[run.planner])
            chosen = [] if any(text.startswith("planner=") for text in own) else [f"planner={run.planner}"]
            return [*common, *chosen, *own]
        own = [*self.config["budgets"]["planners"][run.planner]["overrides"]]
        own.append(f"planner.sub_planner.budget_evals={run.budget}")
        return [*common, *own, *self.config["budgets"]["planners"][run.planner]["evals"][run.budget]]

    def _gap(self, seed: int) -> Job:
        planner = Run("base", seed, next(name for name in self.planners if name.startswith("mpc_gd")))
        arguments = {
            "models": {model: str(self.folder / self.training(model, seed)) for model in self.models},
            "planned_by": "base",
            "config_name": f"plan_{self.config['env']}",
            "overrides": [*self._settings(planner), "ckpt_path=unused", "run_dir=unused"],
            "num_tasks": self.config["n_evals"],
            "seed": GOALS_SEED,  # the same windows for every training seed
        }
        return Job(f"gap_s{seed}", stages.measure_gap, arguments, [self.training(m, seed) for m in self.models])


def _flat(overrides: Any) -> list[str]:
    """Lists in lists, as an interpolation makes them, as one list."""
    return [text for each in overrides for text in (each if isinstance(each, list) else [each])]
