"""Planning by the cross-entropy method, then by gradient descent from where it ended."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from planning.planners.cem import CEMPlanner
from planning.planners.descent import Descent, Stage
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import Work
from planning.planners.search import Search
from utils.ranges import Count, NonNegative, Positive, Share, Small


class CEMGDPlanner(CEMPlanner):
    """A few iterations of CEM find the right valley, gradient steps on their mean find its bottom.

    Arguments not listed here are those of ``CEMPlanner`` and ``Descent``.

    Args:
        opt_steps: Iterations of CEM, >= 1.
        grad_steps: Gradient steps from the last mean, >= 1.
        cem_share: Share of a budget that CEM gets, in (0, 1); the descent gets what is left.
    """

    differentiates = True

    def __init__(
        self,
        horizon: Small = 5,
        opt_steps: Count = 5,
        num_samples: Count = 64,
        topk: Count = 8,
        grad_steps: Count = 50,
        lr: Positive = 0.1,
        action_noise: NonNegative = 0.003,
        optimizer_type: str = "adam",
        lr_schedule: str = "constant",
        cem_share: Share = 0.5,
        **common: Any,
    ) -> None:
        if grad_steps < 1:
            raise ValueError(f"planner.grad_steps must be at least 1, got {grad_steps}")
        if not 0 < cem_share < 1:
            raise ValueError(f"planner.cem_share must be in (0, 1), got {cem_share}")
        self.descent = Descent(lr, action_noise, optimizer_type, lr_schedule)
        self.grad_steps, self.cem_share = grad_steps, cem_share
        super().__init__(horizon, opt_steps, num_samples, topk, **common)

    def _work_at_the_end(self) -> Work:
        return Work(2, 1)  # a gradient step, and where it leads

    def _search(self, search: Search, start: Tensor, noise: EpisodeNoise) -> None:
        mean = self.refit(search, start, noise, reserve=self._work_at_the_end(), until=self.cem_share)
        stages = [Stage(1, self.grad_steps, search.steps(self.grad_steps, Work(1, 1), Work(1)))]
        search.values(self.descent.run(search, mean[:, None], noise, stages, self.grad_steps))
