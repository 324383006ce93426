"""Rates and differences over training seeds and episodes, with their intervals and verdicts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.report import Pair, Rate, Steps
from experiments.result import Result
from utils.statistics import (
    crossed_interval,
    mcnemar,
    mean_interval,
    median_interval,
    paired_difference,
    wilson_interval,
)

BETTER, WORSE, SAME = "better", "worse", "not distinguishable"
LEVEL = 0.05  # of the exact test


def rate_of(table: NDArray[np.float64]) -> Rate:
    """Estimate a rate from a (seeds, episodes) table of 0 and 1, by Wilson's interval for one seed, else crossed."""
    seeds, episodes = table.shape
    if seeds == 1:
        return rate_of_count(float(table.sum()), episodes)
    return Rate(mean=float(table.mean()), **_ends(crossed_interval(table)), each=table.mean(1).tolist())


def rate_of_count(successes: float, episodes: int) -> Rate:
    """Estimate a rate of which only the number of successes is known."""
    low, high = wilson_interval(min(successes, episodes), episodes)
    mean = successes / episodes
    return Rate(mean=mean, low=low, high=high, each=[mean])


def mean_of(table: NDArray[np.float64]) -> Rate:
    """Estimate the mean of a (seeds, episodes) table of any numbers; one number alone has no interval."""
    found = mean_interval(table[0].tolist()) if len(table) == 1 else crossed_interval(table, is_rate=False)
    ends = _ends(found) if np.isfinite(found[1]) else {}
    return Rate(mean=found[0], **ends, each=table.mean(1).tolist())


def _ends(found: tuple[float, float, float]) -> dict[str, float]:
    return {"low": found[1], "high": found[2]}


def pair_of(
    of: str, names: tuple[str, str], with_: str, goals: str, first: Sequence[Result], second: Sequence[Result]
) -> Pair:
    """Compare two models or planners on the episodes that both met, seed by seed.

    Args:
        of: "models" or "planners".
        names: Of the two.
        with_: The planner or model that they share.
        goals: Of both.
        first, second: Their results, one for each seed; one alone is compared with all of the other.
    """
    a, b = (_solved(results) for results in (first, second))
    both = min(a.shape[1], b.shape[1])
    a, b = np.broadcast_arrays(a[:, :both], b[:, :both])
    difference, p = a - b, None
    only = int((difference > 0).sum()), int((difference < 0).sum())
    if len(a) == 1:
        found = paired_difference((b[0] > 0).tolist(), (a[0] > 0).tolist())
        p = mcnemar(*only)
    else:
        found = crossed_interval(difference, is_rate=False)
    rate = Rate(mean=found[0], **_ends(found), each=difference.mean(1).tolist())
    return Pair(
        of=of,
        first=names[0],
        second=names[1],
        with_=with_,
        goals=goals,
        difference=rate,
        only_first=only[0],
        only_second=only[1],
        p=p,
        verdict=verdict(rate, p),
    )


def verdict(difference: Rate, p: float | None) -> str:
    """Say which is better: only where the interval leaves out 0, and the exact test agrees if there is one."""
    sign = difference.sign if p is None or p < LEVEL else 0
    return {1: BETTER, -1: WORSE, 0: SAME}[sign]


def _solved(results: Sequence[Result]) -> NDArray[np.float64]:
    """(seeds, episodes) of 0 and 1."""
    return np.array([result.solved for result in results])


def success(results: Sequence[Result]) -> Rate:
    """Share of episodes that were inside their region at the end of some iteration."""
    return rate_of(_solved(results))


def final(results: Sequence[Result]) -> Rate | None:
    """Share of episodes that are inside their region at the end of the budget; None if any seed does not know."""
    known = [result.final for result in results if result.final is not None]
    return rate_of(np.array(known, dtype=float)) if len(known) == len(results) else None


def steps_to_success(results: Sequence[Result]) -> Steps | None:
    """Raw steps until the solved episodes of all seeds were solved."""
    steps = [float(step) for result in results for step in result.solved_at_step if step > 0]
    return Steps(**dict(zip(("median", "low", "high"), median_interval(steps), strict=True))) if steps else None
