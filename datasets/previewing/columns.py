"""Statistics of the columns of a table that is read in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SAMPLED_ROWS = 100_000  # for histograms and quantiles: 1 MB a column
BINS = 40


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        table: ``actions``, ``proprio`` or ``states``.
        index: From 0.
        rows: Finite values that were read; the next four are over these, None where there are none.
        expected_mean: Of the normaliser.
        expected_std: Of the normaliser.
        edges: (BINS + 1,) of the histogram.
        counts: (BINS,) of sampled rows.
    """

    table: str
    index: int
    rows: int
    low: float | None
    high: float | None
    mean: float | None
    std: float | None
    expected_mean: float
    expected_std: float
    edges: Sequence[float]
    counts: Sequence[int]

    @property
    def name(self) -> str:
        """Table and number, as an error would name it: ``actions[1]``."""
        return f"{self.table}[{self.index}]"


class ColumnReader:
    """Takes the rows of a table piece by piece; what it keeps does not grow with them.

    Args:
        share: Of the rows, that are kept for histograms and quantiles, in (0, 1].
        rng: Chooses them.
    """

    def __init__(self, share: float, rng: np.random.Generator) -> None:
        self._share, self._rng = share, rng
        self._sampled: list[Array] = []
        self._rows = 0
        self._shift: Any = None  # sums of squares of numbers near 0 keep their digits
        self._sum: Any = 0.0
        self._squares: Any = 0.0
        self._low: Any = np.inf
        self._high: Any = -np.inf

    def add(self, rows: Array) -> None:
        """Take finite rows (T, D)."""
        if not len(rows):
            return
        if self._shift is None:
            self._shift = rows.mean(0)
        apart = rows - self._shift
        self._rows += len(rows)
        self._sum, self._squares = self._sum + apart.sum(0), self._squares + np.square(apart).sum(0)
        self._low, self._high = np.minimum(self._low, rows.min(0)), np.maximum(self._high, rows.max(0))
        chosen = rows if self._share >= 1 else rows[self._rng.random(len(rows)) < self._share]
        self._sampled.append(chosen.astype(np.float32))

    def sampled(self) -> NDArray[np.float32]:
        """The rows that were kept, (n, D); (0, 0) where none were read."""
        return np.concatenate(self._sampled) if self._sampled else np.empty((0, 0), np.float32)

    def columns(self, table: str, means: Array, stds: Array) -> list[Column]:
        """Sum up what was read; ``means`` and ``stds`` (D,) are the normaliser's."""
        sampled = self.sampled()
        return [self._column(table, i, sampled, float(means[i]), float(stds[i])) for i in range(len(means))]

    def _column(self, table: str, i: int, sampled: NDArray[np.float32], mean: float, std: float) -> Column:
        if not self._rows:
            return Column(table, i, 0, None, None, None, None, mean, std, (), ())
        offset = self._sum[i] / self._rows
        variance = max(0.0, (self._squares[i] - self._rows * offset**2) / max(1, self._rows - 1))  # unbiased
        counts, edges = np.histogram(sampled[:, i].astype(np.float64), BINS)
        measured = [float(value) for value in (self._low[i], self._high[i], self._shift[i] + offset, variance**0.5)]
        low, high, middle, spread = measured
        return Column(table, i, self._rows, low, high, middle, spread, mean, std, edges.tolist(), counts.tolist())
