"""What the report says of each model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """One model under one planner.

    Attributes:
        success, low, high: Rate in [0, 1] and its 95 % Wilson interval.
        difference: (second - base, low, high), paired over the same episodes; None for the base itself.
        seconds: Of planning per episode.
        evaluations: Rollouts imagined per episode.
        nothing: (rate, low, high) of doing nothing on these episodes.
        begun: Share of them that begin solved. None: not known, in reports of before.
    """

    model: str
    planner: str
    episodes: int
    success: float
    low: float
    high: float
    difference: tuple[float, float, float] | None
    seconds: float
    evaluations: float
    nothing: tuple[float, float, float] | None = None
    begun: float | None = None


@dataclass(frozen=True)
class Gap:
    """One-step error of a model: (mean, 95 % half width) where the data set goes and where the base's plans lead."""

    model: str
    dataset: tuple[float, float]
    planner: tuple[float, float]

    @property
    def ratio(self) -> float:
        """How many times larger the error is where planners go."""
        return self.planner[0] / self.dataset[0]
