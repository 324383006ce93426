"""Planning by the cross-entropy method whose samples descend before they are judged."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from planning.planners.cem import CEMPlanner
from planning.planners.descent import Descent, Stage
from planning.planners.noise import EpisodeNoise
from planning.planners.search import Search, no_nan
from utils.ranges import Count, NonNegative, Positive, Small


class GradCEMPlanner(CEMPlanner):
    """CEM over samples that each take some gradient steps first; the elites are what these steps led to.

    An iteration takes ``num_samples * (grad_steps + 1)`` rollouts. Arguments not listed here are those of
    ``CEMPlanner`` and ``Descent``.

    Args:
        grad_steps: Gradient steps of every sample in every iteration, >= 1.

    Source: Bharadhwaj et al. 2020, arXiv 2003.08747 (interleaved CEM and gradient descent). Deviation: every sample
    descends its own cost. The earlier release descended the mean over samples, so that its rate of SGD depends on
    ``num_samples``: divide it by that number here.
    """

    differentiates = True

    def __init__(
        self,
        horizon: Small = 5,
        opt_steps: Count = 10,
        num_samples: Count = 32,
        topk: Count = 8,
        grad_steps: Count = 4,
        lr: Positive = 0.1,
        action_noise: NonNegative = 0.003,
        optimizer_type: str = "adam",
        lr_schedule: str = "constant",
        **common: Any,
    ) -> None:
        if grad_steps < 1:
            raise ValueError(f"planner.grad_steps must be at least 1, got {grad_steps}")
        self.grad_steps, self.descent = grad_steps, Descent(lr, action_noise, optimizer_type, lr_schedule)
        super().__init__(horizon, opt_steps, num_samples, topk, **common)

    def _evaluations_of_a_step(self) -> int:
        return self.num_samples * (self.grad_steps + 1)

    def _gradients_of_a_step(self) -> int:
        return self.num_samples * self.grad_steps

    def _judge(self, search: Search, samples: Tensor, noise: EpisodeNoise) -> tuple[Tensor, Tensor]:
        stages = [Stage(self.num_samples, self.grad_steps, range(self.grad_steps))]
        descended = self.descent.run(
            search, samples, noise, stages, self.grad_steps, traced=lambda values: no_nan(values)[:, 0]
        )
        costs = no_nan(search.values(descended))
        # where the descent left everything finite behind, the sample stays what it was, and is no elite of choice
        return torch.where(costs.isfinite()[:, :, None, None], descended, samples), costs
