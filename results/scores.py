"""What the evaluations of the study say: success, differences, cost, errors."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from planning.evaluation import TARGETS
from results.jobs import Run, Study
from utils.reading.npz_file import read_npz
from utils.statistics import crossed_interval


@dataclass(frozen=True)
class Estimate:
    """A mean over training seeds and episodes, with its 95 % interval; ``each``: the mean of every seed."""

    mean: float
    low: float
    high: float
    each: tuple[float, ...]

    @classmethod
    def of(cls, table: np.ndarray, is_rate: bool = True) -> Estimate:
        """From a (seeds, episodes) table of outcomes, or of their differences; see ``crossed_interval``."""
        return cls(*crossed_interval(table, is_rate), tuple(table.mean(1).tolist()))

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Cost:
    """What planning took, over the runs of all seeds and models.

    Attributes:
        seconds: median wall clock per episode.
        evaluations, gradients: rollouts imagined per episode, and how many of them were differentiated.
    """

    seconds: float
    evaluations: float
    gradients: float


class Scores:
    """Success of every planner on every model.

    Args:
        study: what was run. results: job name -> what it returned.
    """

    def __init__(self, study: Study, results: Mapping[str, Any]) -> None:
        self.study, self._results = study, results

    @functools.cache  # noqa: B019  (a report is made once)
    def success(self, model: str, planner: str, budget: int | None = None) -> Estimate:
        """In [0, 1]."""
        return Estimate.of(self._solved(model, planner, budget))

    @functools.cache  # noqa: B019
    def difference(self, model: str, to: str, planner: str) -> Estimate:
        """Success of ``model`` minus that of ``to``, the same seeds and episodes compared, in [-1, 1]."""
        return Estimate.of(self._solved(model, planner) - self._solved(to, planner), is_rate=False)

    def cost(self, planner: str, models: Sequence[str], budget: int | None = None) -> Cost:
        """Of a planner on some models."""
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
