"""Means over training seeds and episodes, with their intervals, and how tables write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.statistics import crossed_interval


@dataclass(frozen=True)
class Estimate:
    """A mean over training seeds and episodes, with its 95 % interval; ``each``: of every seed, or only their range."""

    mean: float
    low: float
    high: float
    each: Sequence[float] = ()

    @classmethod
    def of(cls, table: np.ndarray, is_rate: bool = True) -> Estimate:
        """Estimate the mean of a (seeds, episodes) table of outcomes, or of differences; see ``crossed_interval``."""
        return cls(*crossed_interval(table, is_rate), each=tuple(table.mean(1).tolist()))

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def as_percent(self) -> str:
        """Write a rate: mean, interval, and range over seeds."""
        each = f" ({100 * min(self.each):.0f}..{100 * max(self.each):.0f})" if self.each else ""
        return f"{100 * self.mean:.0f} [{100 * self.low:.0f}, {100 * self.high:.0f}]{each}"

    def as_points(self) -> str:
        """Write a difference of rates in percentage points, bold where it leaves out 0."""
        # a digit more where a whole number would hide the sign
        values = (self.mean, self.low, self.high)
        mean, low, high = (f"{100 * v:+.1f}" if 0 < abs(v) < 0.005 else f"{100 * v:+.0f}" for v in values)
        text = f"{mean} [{low}, {high}]"
        return f"**{text}**" if self.is_clear else text
