"""Acting by the model's proposal alone: what every search has to beat."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from planning.planners.base import Planner
from planning.planners.noise import EpisodeNoise
from planning.planners.search import Search
from utils.ranges import Count, Small


class PolicyPlanner(Planner):
    """Plan what the model proposes; nothing is searched. One rollout says what it costs.

    In a closed loop the plan is always a new proposal, never the rest of the last one: the only planner whose plan may
    cost more than its start. Arguments not listed here are those of ``Planner``.

    Args:
        opt_steps: Has no effect; every planner takes it.
    """

    sample_type = "proposal"
    step_evaluations = shortest = 1

    def __init__(self, horizon: Small = 5, opt_steps: Count = 1, **common: Any) -> None:
        super().__init__(horizon, opt_steps, **common)

    def _search(self, search: Search, start: Tensor, noise: EpisodeNoise) -> None:
        proposal = search.space.proposal
        search.values(start[:, None] if proposal is None else search.clip(proposal[:, None, : start.shape[1]]))
