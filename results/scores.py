"""What the evaluations of the study say: success, differences, cost, errors."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from experiments.estimate import Estimate
from planning.saved_evaluation import TARGETS
from results.jobs import Run, Study
from results.numbers import Budget, Cost, Error, Numbers
from utils.reading.npz_file import read_npz


class Scores:
    """Success of every planner on every model.

    Args:
        study: What was run.
        results: Job name -> what it returned.
    """

    def __init__(self, study: Study, results: Mapping[str, Any]) -> None:
        self.study, self._results = study, results

    @functools.cache  # noqa: B019  (a report is made once)
    def success(self, model: str, planner: str, budget: int | None = None) -> Estimate:
        """Share of solved episodes, in [0, 1]."""
        return Estimate.of(self._solved(model, planner, budget))

    @functools.cache  # noqa: B019
    def difference(self, model: str, to: str, planner: str) -> Estimate:
        """Success of ``model`` minus that of ``to``, the same seeds and episodes compared, in [-1, 1]."""
        return Estimate.of(self._solved(model, planner) - self._solved(to, planner), is_rate=False)

    def cost(self, planner: str, models: Sequence[str], budget: int | None = None) -> Cost:
        """What a planner took on some models."""
        found = [self._results[Run(m, s, planner, budget).name] for m in models for s in self.study.seeds]
        return Cost(
            median(result["planning_seconds_per_episode"] for result in found),
            fmean(result["model_evaluations_per_episode"] for result in found),
            fmean(result["gradient_evaluations_per_episode"] for result in found),
        )

    def error(self, model: str, where: str) -> Estimate:
        """One-step visual error on "dataset" windows, or where the base's plans lead ("planner")."""
        per_seed = [self._results[f"gap_s{seed}"][model][where]["visual_mse"] for seed in self.study.seeds]
        return Estimate.of(np.array(per_seed))

    def numbers(self, made: Mapping[str, Any]) -> Numbers:
        """All that tables and figures show; ``made``: when, with what and how."""
        study = self.study
        return Numbers(
            made=made,
            seeds=len(study.seeds),
            episodes=study.config["n_evals"],
            success={m: {p: self.success(m, p) for p in study.planners} for m in study.models},
            differences={
                f"{m} - {to}": {p: self.difference(m, to, p) for p in study.planners} for m, to in self._pairs()
            },
            cost={planner: self.cost(planner, study.models) for planner in study.planners},
            budgets=self._budgets(),
            errors={model: self._errors(model) for model in study.models},
            findings=self.findings(),
            nothing={planner: self._nothing(planner) for planner in study.planners},
        )

    def findings(self) -> list[str]:
        """What the numbers say, whichever way they point."""
        finetuned = [model for model in self.study.finetuned if model != "control"]
        control = self.error("control", "planner").mean
        return [
            *(self._finding(model) for model in finetuned),
            *(
                f"{model}: the error where plans lead is {self.error(model, 'planner').mean / control:.2f} times that "
                "of the control."
                for model in finetuned
            ),
        ]

    def _finding(self, model: str) -> str:
        found = {name: self.difference(model, "control", name) for name in self.study.planners}
        better = [name for name, change in found.items() if change.low > 0]
        worse = [name for name, change in found.items() if change.high < 0]
        mean = 100 * sum(change.mean for change in found.values()) / len(found)
        return (
            f"{model} against the control: {mean:+.1f} points on average over {len(found)} planners; better with "
            f"{'; '.join(better) or 'none'}; worse with {'; '.join(worse) or 'none'}; the others cannot be told apart."
        )

    def _pairs(self) -> list[tuple[str, str]]:
        """What is compared: each finetuning with the control (as many steps of plain training) and with the base."""
        finetuned = self.study.finetuned
        both = [("online_adversarial", "online")] if "online_adversarial" in finetuned else []
        return [(m, "control") for m in finetuned if m != "control"] + both + [(m, "base") for m in finetuned]

    def _budgets(self) -> list[Budget]:
        budgets = self.study.config["budgets"]
        models = budgets["models"]
        return [
            Budget(
                planner,
                rollouts,
                {model: self.success(model, planner, rollouts) for model in models},
                self.cost(planner, models, rollouts),
                {model: self.cost(planner, [model], rollouts) for model in models},
            )
            for planner, setting in budgets["planners"].items()
            for rollouts in setting["evals"]
        ]

    def _errors(self, model: str) -> Error:
        data, plans = self.error(model, "dataset"), self.error(model, "planner")
        return Error(data, plans, plans.mean / data.mean)

    def _nothing(self, planner: str) -> Estimate:
        """What doing nothing solves, on episodes that are the same for all models and seeds."""
        found = self._results[Run(self.study.models[0], self.study.seeds[0], planner).name]
        return Estimate(*(found[f"do_nothing_rate{end}"] for end in ("", "_low", "_high")))

    def _solved(self, model: str, planner: str, budget: int | None = None) -> np.ndarray:
        """(seeds, episodes) of 0 and 1."""
        runs = [Run(model, seed, planner, budget) for seed in self.study.seeds]
        return np.array([[at > 0 for at in self._results[run.name]["solved_at"]] for run in runs], dtype=float)


def goals_hash(folders: Sequence[Path]) -> str:
    """SHA-256 of the starts, goals and layouts that all evaluations in ``folders`` met.

    Raises:
        ValueError: If two of them met different ones.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        digest = hashlib.sha256()
        for name, array in sorted(read_npz(folder / TARGETS).items()):
            digest.update(name.encode() + str(array.dtype).encode() + str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        found.setdefault(digest.hexdigest(), folder)
    if len(found) > 1:
        first, second, *_ = found.values()
        raise ValueError(f"{first} and {second} met different goals: delete both and their stages, and run again")
    return next(iter(found))
