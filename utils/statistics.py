"""Intervals that say how much a handful of episodes can tell."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson_interval(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a success rate, in [0, 1].

    Source: Wilson 1927; unlike the normal approximation it stays inside [0, 1] and does not collapse at 0 or 100 %.

    Raises:
        ValueError: If there are no trials, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"wilson_interval needs 0 <= successes <= trials >= 1, got {successes} of {trials}")
    rate, square = successes / trials, z * z / trials
    centre = (rate + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_difference(first: list[bool], second: list[bool], z: float = Z95) -> tuple[float, float, float]:
    """Difference of two success rates on the same episodes, with a 95 % interval: (second - first, low, high).

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
