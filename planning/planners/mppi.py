"""Planning by model-predictive path integral control."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from planning.planners.base import Planner
from planning.planners.noise import EpisodeNoise, check_colour, coloured
from planning.planners.search import Search, no_nan
from utils.ranges import Count, NonNegative, Positive, Share, Small


class MPPIPlanner(Planner):
    """Perturb the plan many times, and average the perturbations, those of lower cost weighing more.

    The first plan is zero in z-scored units. Arguments not listed here are those of ``Planner``.

    Args:
        num_samples: Perturbations per iteration, >= 2; the plan itself is evaluated beside them.
        temperature: Lambda of the softmin, > 0; lower listens to fewer samples.
        relative_temperature: Whether ``temperature`` is in units of the standard deviation of an episode's sample
            costs, which fits models and objectives of any scale; else it is in units of the cost.
        var_scale: Standard deviation of the perturbations in z-scored action units, > 0.
        noise_decay: Factor on that deviation from one iteration to the next, in (0, 1]; 1 as in the source.
        noise_beta: See ``CEMPlanner``.
        cross_term: Share of the cross term of plan and perturbation, lambda u^T Sigma^-1 epsilon, in [0, 1]. With 1,
            the source's alpha = 0, the plan pays for its distance from zero; with 0 only the objective counts.

    Source: Williams et al. 2017, "Information theoretic MPC for model-based reinforcement learning", algorithm 2.
    Deviation: several iterations before a plan is carried out, with noise that may shrink; Sigma of the cross term
    stays the first one's.
    """

    sample_type = "mean"

    def __init__(
        self,
        horizon: Small = 5,
        opt_steps: Count = 10,
        num_samples: Count = 128,
        temperature: Positive = 0.1,
        relative_temperature: bool = True,
        var_scale: Positive = 1.0,
        noise_decay: Share = 0.8,
        noise_beta: NonNegative = 0.0,
        cross_term: Share = 1.0,
        **common: Any,
    ) -> None:
        if num_samples < 2:
            raise ValueError(f"planner.num_samples must be at least 2, got {num_samples}")
        if not 0 < temperature < math.inf or not 0 < var_scale < math.inf:
            raise ValueError(
                f"planner.temperature and planner.var_scale must be > 0, got {temperature} and {var_scale}"
            )
        if not 0 < noise_decay <= 1:
            raise ValueError(f"planner.noise_decay must be in (0, 1], got {noise_decay}")
        check_colour(noise_beta)
        if not 0 <= cross_term <= 1:
            raise ValueError(f"planner.cross_term must be in [0, 1], got {cross_term}")
        self.num_samples, self.temperature, self.relative = num_samples, temperature, relative_temperature
        self.var_scale, self.noise_decay, self.noise_beta = var_scale, noise_decay, noise_beta
        self.cross_term = cross_term
        self.step_evaluations, self.shortest = num_samples + 1, num_samples + 2
        super().__init__(horizon, opt_steps, **common)

    @torch.no_grad()
    def _search(self, search: Search, start: Tensor, noise: EpisodeNoise) -> None:
        plan = start
        for step in search.steps(self.opt_steps, self.step_evaluations, 1):
            white = noise.randn(self.num_samples, *plan.shape[1:])
            drawn = coloured(white, self.noise_beta, search.space.env_action_dim)
            deviation = self.var_scale * self.noise_decay**step
            samples = search.clip(plan[:, None] + deviation * drawn)
            costs = search.values(torch.cat([plan[:, None], samples], 1))
            search.record(no_nan(costs)[:, 0])
            # what was clipped away was not tried
            plan = plan + self._average(plan, samples - plan[:, None], costs[:, 1:])
        search.values(search.clip(plan)[:, None])

    def _average(self, plan: Tensor, perturbations: Tensor, costs: Tensor) -> Tensor:
        """Weighted mean (B, T, A) of ``perturbations`` (B, N, T, A) of ``plan`` (B, T, A) with ``costs`` (B, N)."""
        finite = costs.isfinite()
        lowest = costs.masked_fill(~finite, torch.inf).amin(1, keepdim=True)
        above = (costs - lowest).masked_fill(~finite, 0.0)  # the same to the softmin, but exact
        temperature = torch.full_like(above[:, :1], self.temperature)
        if self.relative:
            temperature = temperature * _deviation(above, finite).clamp_min(torch.finfo(above.dtype).tiny)
        cross = (plan[:, None] * perturbations).sum((2, 3)) / self.var_scale**2
        exponent = -(above / temperature + self.cross_term * cross)
        # samples without a finite cost do not count; without any that does, the plan stays
        weights = torch.softmax(exponent.masked_fill(~finite, -torch.inf), 1).nan_to_num(0.0)
        return (weights[:, :, None, None] * perturbations).sum(1)


def _deviation(values: Tensor, counted: Tensor) -> Tensor:
    """Standard deviation (B, 1) of those ``values`` (B, N) that are ``counted``; 0 of fewer than two."""
    number = counted.sum(1, keepdim=True)
    mean = (values * counted).sum(1, keepdim=True) / number.clamp_min(1)
    return (((values - mean) * counted).square().sum(1, keepdim=True) / (number - 1).clamp_min(1)).sqrt()
