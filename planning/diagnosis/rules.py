"""The rules that sort failed episodes; docs/why.md explains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MODEL, SEARCH, DISTANCE, OUT_OF_REACH = "model", "search", "distance", "out of reach"
REASONS = (MODEL, SEARCH, DISTANCE, OUT_OF_REACH)
QUANTILE = 0.9  # of what was seen in solved episodes
LEAST_GAIN = 0.05  # share of a cost, below which a difference is never clear


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a failed episode. Latent distances and costs have the objective's unit.

    Attributes:
        way: What is known to reach the goal within the budget; None: nothing is.
        tried: Action sequences that were simulated to find a way.
        nearest: How near to the goal the best of them came, in the environment's unit.
        plans: How many plans were made.
        hopeful: How many of them imagined to be near the goal at a moment within the budget at which it would count.
        came_true: How many of the hopeful ones, carried out to the end, do reach the goal at such a moment.
        imagined: Smallest latent distance to the goal that a plan imagined for such a moment.
        true: Latent distance at that moment when the plan is carried out.
        away: Distance to the goal then, in the environment's unit.
        cost: The first plan's, as imagined.
        best_cost: Lowest that is known in its place, under the same model.
        best: Where that comes from.
        best_true_cost: What that costs in the simulator.
        true_cost: The first plan's, as it comes true.
        way_cost: Of the beginning of the way, as imagined.
        way_true_cost: The same, as it comes true.
    """

    way: str | None
    tried: int
    nearest: float
    plans: int
    hopeful: int
    came_true: int
    imagined: float
    true: float
    away: float
    cost: float
    best_cost: float
    best: str
    best_true_cost: float
    true_cost: float
    way_cost: float
    way_true_cost: float


@dataclass(frozen=True)
class Thresholds:
    """What counts as near, and as a clear difference.

    Attributes:
        near: Latent distance to the goal: so near are 90 % of the states seen inside a success region.
        gain: Cost: by no more did a longer search improve 90 % of the first plans of solved episodes.
    """

    near: float
    gain: float

    @classmethod
    def of(cls, inside: Sequence[float], gains: Sequence[float]) -> Thresholds:
        """Take the thresholds from data.

        Args:
            inside: Latent distances to the goal of states inside the success region; without any, nothing is near.
            gains: What a longer search gained in solved episodes; without any, shares of a cost decide alone.
        """
        near = float(np.quantile(inside, QUANTILE)) if len(inside) else -1.0
        return cls(near, float(np.quantile(gains, QUANTILE)) if len(gains) else 0.0)

    def clear(self, cost: float) -> float:
        """How far below ``cost`` another must be, to be clearly lower."""
        return max(self.gain, LEAST_GAIN * abs(cost))


def reason(facts: Facts, limits: Thresholds) -> tuple[str, str]:
    """Say why an episode failed, and by which numbers."""
    f = facts
    if f.way is None:
        return OUT_OF_REACH, (
            f"nothing is known to reach the goal within the budget: the best of {f.tried} action sequences in the "
            f"simulator came to {f.nearest:.3g} from it"
        )
    reachable = f"{f.way} reach the goal"
    if f.hopeful and not f.came_true:
        promise = (
            f"{f.hopeful} of {f.plans} plans imagined to come near the goal, at best to {f.imagined:.3g} (near is "
            f"{limits.near:.3g})"
        )
        if f.true <= limits.near:
            return DISTANCE, f"{promise}; carried out it is {f.true:.3g} in latents, yet {f.away:.3g} away in truth"
        return MODEL, f"{promise}; carried out it is {f.true:.3g} and {f.away:.3g} away in truth, while {reachable}"
    if f.cost - f.best_cost > limits.clear(f.cost):
        better = (
            f"the first plan costs {f.cost:.3g}, the best that is known under the same model {f.best_cost:.3g} "
            f"({f.best}; a difference above {limits.clear(f.cost):.3g} is clear); in the simulator they cost "
            f"{f.true_cost:.3g} and {f.best_true_cost:.3g}"
        )
        if f.best_true_cost < f.true_cost:
            return SEARCH, better
        return MODEL, f"{better}: a longer search is led astray"
    if f.came_true:
        return DISTANCE, (
            f"{f.came_true} of {f.plans} plans would have reached the goal in time if carried out to the end; what was "
            f"preferred to them later did not"
        )
    compared = (
        f"{reachable}; their beginning costs {f.way_true_cost:.3g} in the simulator and {f.way_cost:.3g} in the model, "
        f"the first plan {f.true_cost:.3g} and {f.cost:.3g}"
    )
    if f.true_cost - f.way_true_cost > limits.clear(f.true_cost):
        return MODEL, f"{compared}: the model ranks them the wrong way round"
    return DISTANCE, f"{compared}: even the simulator does not prefer them"
