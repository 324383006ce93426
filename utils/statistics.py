"""Intervals that say how much a handful of episodes can tell."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import fmean, median, stdev

import numpy as np

HELD = 1_000_000  # numbers of a bootstrap at a time, so that thousands of episodes take no more memory than dozens
Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson_interval(successes: float, trials: int, z: float = Z95) -> tuple[float, float]:
    """Return the score interval of a success rate, in [0, 1]; ``successes`` may have parts, of trials that are means.

    Source: Wilson 1927; unlike the normal approximation it stays inside [0, 1] and does not collapse at 0 or 100 %.

    Raises:
        ValueError: If there are no trials, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"wilson_interval needs 0 <= successes <= trials >= 1, got {successes} of {trials}")
    rate, square = successes / trials, z * z / trials
    if successes in (0, trials):  # exactly, where rounding would leave a trace
        bound = square / (1 + square)
        return (0.0, bound) if successes == 0 else (1 - bound, 1.0)
    centre = (rate + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(first: list[bool], second: list[bool], z: float = Z95) -> tuple[float, float, float]:
    """Return the difference of two success rates on the same episodes, with a 95 % interval.

    Returns:
        (second - first, low, high).

    Source: the adjusted Wald interval for paired proportions of Agresti and Min 2005, which adds half a pair to each
    of the four outcomes; the point estimate is left unadjusted.

    Raises:
        ValueError: If the lists differ in length or are empty.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"paired_difference needs two equally long lists, got {len(first)} and {len(second)}")
    n = len(first)
    gained = sum(b and not a for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    total = n + 2
    up, down = (gained + 0.5) / total, (lost + 0.5) / total
    half = z * math.sqrt((up + down - (up - down) ** 2) / total)
    return (gained - lost) / n, max(-1.0, up - down - half), min(1.0, up - down + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p of McNemar's exact test: that pairs that differ fall either way with the same chance.

    Source: McNemar 1947; exact by the binomial distribution of the pairs that differ.

    Args:
        only_first: Pairs of which the first alone succeeded, >= 0.
        only_second: Likewise.
    """
    n = only_first + only_second
    ways = tail = 1
    for k in range(min(only_first, only_second)):
        ways = ways * (n - k) // (k + 1)  # of choosing k + 1 of n: of thousands of pairs too much to compute anew
        tail += ways
    return min(1.0, 2 * tail / 2**n)


def median_interval(values: Sequence[float], z: float = Z95) -> tuple[float, float, float]:
    """Return (median, low, high), the last two being ordered values between which the median lies with about 95 %.

    Source: Conover 1999, "Practical Nonparametric Statistics", the interval of a quantile by ranks.

    Raises:
        ValueError: If there is no value.
    """
    if not values:
        raise ValueError("median_interval needs at least one value")
    ordered, n = sorted(values), len(values)
    half = z * math.sqrt(n) / 2
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half) - 1)
    return median(ordered), ordered[low], ordered[max(low, high)]


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return (mean, low, high) of a few independent values, Student's 95 % interval; NaN for that of one value.

    Source: Student 1908; quantiles below five degrees of freedom from tables, the others by the expansion in Abramowitz
    and Stegun, 26.7.5, off by a thousandth at most there.

    Raises:
        ValueError: If there is no value.
    """
    if not values:
        raise ValueError("mean_interval needs at least one value")
    centre, degrees, z = fmean(values), len(values) - 1, Z95
    if degrees == 0:
        return centre, math.nan, math.nan
    quantile = z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    quantile += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    half = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}.get(degrees, quantile) * stdev(values) / math.sqrt(len(values))
    return centre, centre - half, centre + half


def crossed_interval(
    values: np.ndarray, is_rate: bool = True, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Return (mean, low, high) of a (rows, columns) table, with a 95 % interval.

    Rows are for instance trained models and columns episodes that all of them met: neither the values of a row nor
    those of a column are independent. The pigeonhole bootstrap draws rows and columns anew, each with replacement, and
    covers the choice of both. With three rows, their part of the spread is a rough guess and too small (a factor of
    (rows - 1) / rows in the variance), while what belongs to neither rows nor columns counts up to three times; in
    tables of 0 and 1, where that is most of the spread, intervals are rather too wide.

    A table without any spread gets the interval of as many columns: Wilson's where it is all 1, or all 0 and
    ``is_rate``, else the one by ``paired_difference`` of equal outcomes.

    Source: Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1.

    Raises:
        ValueError: If the table is empty or has another number of dimensions.
    """
    if values.ndim != 2 or not values.size:
        raise ValueError(f"crossed_interval needs a table with rows and columns, got the shape {values.shape}")
    rows, columns = values.shape
    mean = float(values.mean())
    if values.min() == values.max():
        if is_rate and mean in (0.0, 1.0):
            return mean, *wilson_interval(round(mean * columns), columns)
        same = [False] * columns
        return (mean, *paired_difference(same, same)[1:]) if mean == 0 else (mean, mean, mean)
    drawn = _drawn_counts(rows, columns, draws, seed)
    at_once = _at_once(columns)
    means = np.empty(draws)
    for first in range(0, draws, at_once):
        of_rows, of_columns = (each[first : first + at_once].astype(float) / each.shape[1] for each in drawn)
        means[first : first + at_once] = ((of_rows @ values) * of_columns).sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return mean, float(low), float(high)


def _at_once(columns: int) -> int:
    """Draws whose numbers are held at a time."""
    return max(1, HELD // columns)


@functools.lru_cache(maxsize=2)
def _drawn_counts(rows: int, columns: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw how often each row (draws, rows) and column (draws, columns) counts, a byte each."""
    generator = np.random.default_rng(seed)

    def counts(size: int) -> np.ndarray:
        found = np.empty((draws, size), np.uint8)  # one of so many comes up more than 255 times never
        for first in range(0, draws, _at_once(size)):
            part = found[first : first + _at_once(size)]
            part[...] = generator.multinomial(size, np.full(size, 1 / size), len(part))
        return found

    return counts(rows), counts(columns)
