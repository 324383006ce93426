"""Planners that search nothing: random actions, the floor under all others, and the model's proposal as it is."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from planning.planners.base import Planner
from planning.planners.noise import EpisodeNoise
from planning.planners.search import Search
from utils.ranges import Count, Small


class RandomPlanner(Planner):
    """Draw every action from the normal distribution with the data's mean and deviation; nothing is searched.

    One rollout says what the plan costs. Arguments not listed here are those of ``Planner``.

    Args:
        opt_steps: Has no effect; every planner takes it.
    """

    sample_type = "randn"
    step_evaluations = shortest = 1

    def __init__(self, horizon: Small = 5, opt_steps: Count = 1, **common: Any) -> None:
        super().__init__(horizon, opt_steps, **common)

    def _search(self, search: Search, start: Tensor, noise: EpisodeNoise) -> None:
        search.values(start[:, None])


class PolicyPlanner(RandomPlanner):
    """Plan what the model proposes, in the place of random actions.

    In a closed loop the plan is always a new proposal, never the rest of the last one: the only planner whose plan may
    cost more than its start.
    """

    sample_type = "proposal"

    def _search(self, search: Search, start: Tensor, noise: EpisodeNoise) -> None:
        proposal = search.space.proposal
        super()._search(search, start if proposal is None else search.clip(proposal[:, : start.shape[1]]), noise)
