"""Planning by the cross-entropy method."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from planning.planners.base import Planner
from planning.planners.noise import EpisodeNoise, check_colour, coloured
from planning.planners.plan import Work
from planning.planners.search import Search, no_nan
from utils.ranges import Count, CountOrZero, NonNegative, Positive, Share, Small


class CEMPlanner(Planner):
    """Sample, keep the best, refit a normal distribution; all episodes and samples in one batch.

    The first mean is zero in z-scored units. Arguments not listed here are those of ``Planner``.

    Args:
        num_samples: Candidates per iteration; the first is the mean itself. So many rollouts take a step.
        topk: Elites, 2 <= topk < num_samples.
        var_scale: Initial standard deviation in z-scored action units, > 0.
        momentum: Share of the old mean and deviation in the new ones, in [0, 1).
        keep_elites: Of an iteration's elites, how many compete again in the next one, 0 <= keep_elites <= topk. Their
            cost is known: they take no rollouts.
        noise_beta: Exponent of the noise's power spectrum 1 / f ** beta over raw steps, >= 0; 0 is white.

    Source: DINO-WM, appendix; the standard deviation of the elites is the unbiased one. ``momentum``, ``keep_elites``
    and ``noise_beta`` are those of iCEM, Pinneri et al. 2020, arXiv 2008.06389, section 3.
    """

    sample_type = "mean"

    def __init__(
        self,
        horizon: Small = 5,
        opt_steps: Count = 30,
        num_samples: Count = 300,
        topk: Count = 30,
        var_scale: Positive = 1.0,
        momentum: Share = 0.0,
        keep_elites: CountOrZero = 0,
        noise_beta: NonNegative = 0.0,
        **common: Any,
    ) -> None:
        if not 2 <= topk < num_samples:
            raise ValueError(
                f"planner.topk must be at least 2 and below planner.num_samples={num_samples} (elites are chosen from "
                f"the samples), got {topk}"
            )
        if not 0 < var_scale < math.inf:
            raise ValueError(f"planner.var_scale must be > 0, got {var_scale}")
        if not 0 <= momentum < 1:
            raise ValueError(f"planner.momentum must be in [0, 1), got {momentum}")
        if not 0 <= keep_elites <= topk:
            raise ValueError(f"planner.keep_elites must be in [0, {topk}], planner.topk, got {keep_elites}")
        check_colour(noise_beta)
        self.num_samples, self.topk, self.var_scale = num_samples, topk, var_scale
        self.momentum, self.keep_elites, self.noise_beta = momentum, keep_elites, noise_beta
        self.step_evaluations = self._evaluations_of_a_step()
        end = self._work_at_the_end()
        self.shortest = self.step_evaluations + end.evaluations
        self.shortest_gradients = self._gradients_of_a_step() + end.gradients
        super().__init__(horizon, opt_steps, **common)

    def _evaluations_of_a_step(self) -> int:
        return self.num_samples

    def _gradients_of_a_step(self) -> int:
        return 0

    def _work_at_the_end(self) -> Work:
        return Work(1)

    def _search(self, search: Search, start: Tensor, noise: EpisodeNoise) -> None:
        search.values(self.refit(search, start, noise, reserve=Work(1))[:, None])

    @torch.no_grad()
    def refit(
        self, search: Search, start: Tensor, noise: EpisodeNoise, reserve: Work | int, until: float = 1.0
    ) -> Tensor:
        """Iterate from the mean ``start`` (B, T, A); returns the last mean.

        Args:
            search: Evaluates candidates.
            start: The first mean.
            noise: One stream per problem.
            reserve: What is left for afterwards, see ``Search.steps``.
            until: Share of the budget after which no iteration begins.
        """
        mean, std = start, torch.full_like(start, self.var_scale)
        elites, elite_costs = start[:, None][:, :0], start[:, :0, 0]
        step = Work(self.step_evaluations, self._gradients_of_a_step())
        for _ in search.steps(self.opt_steps, step, reserve, until):
            samples, costs = self._judge(search, self._draw(search, mean, std, noise), noise)
            kept = slice(self.keep_elites)
            candidates = torch.cat([samples, elites[:, kept]], 1)
            all_costs = no_nan(torch.cat([costs, elite_costs[:, kept]], 1))
            elite_costs, best = all_costs.topk(self.topk, dim=1, largest=False)
            elites = candidates.gather(1, best[:, :, None, None].expand(-1, -1, *mean.shape[1:]))
            mean = self.momentum * mean + (1 - self.momentum) * elites.mean(1)
            std = self.momentum * std + (1 - self.momentum) * elites.std(1)
        return search.clip(mean)  # an average of clipped actions may round to just outside

    def _draw(self, search: Search, mean: Tensor, std: Tensor, noise: EpisodeNoise) -> Tensor:
        """Candidates (B, N, T, A) around ``mean`` (B, T, A), which is the first of them."""
        white = noise.randn(self.num_samples, *mean.shape[1:])
        drawn = coloured(white, self.noise_beta, search.space.env_action_dim)
        samples = mean[:, None] + std[:, None] * drawn
        samples[:, 0] = mean
        return search.clip(samples)

    def _judge(self, search: Search, samples: Tensor, noise: EpisodeNoise) -> tuple[Tensor, Tensor]:
        """The candidates (B, N, T, A) that elites are chosen from, and their costs (B, N)."""
        costs = search.values(samples)
        search.record(costs[:, 0])
        return samples, costs
