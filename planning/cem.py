"""Planning by the cross-entropy method."""

from __future__ import annotations

import torch
from torch import Tensor

from planning.noise import EpisodeNoise
from planning.planner import CostFn, Plan, Planner


class CEMPlanner(Planner):
    """Sample, keep the best, refit a normal distribution; all episodes and samples in one batch.

    Args:
        horizon, opt_steps, rollout_type, eval_every: see ``Planner``. The first mean is zero in z-scored units.
        num_samples: candidates per iteration; the first is the mean itself.
        topk: elites, 2 <= topk < num_samples.
        var_scale: initial standard deviation in z-scored action units, > 0.

    Source: DINO-WM, appendix; the standard deviation of the elites is the unbiased one.
    """

    def __init__(
        self,
        horizon: int = 5,
        opt_steps: int = 30,
        num_samples: int = 300,
        topk: int = 30,
        var_scale: float = 1.0,
        rollout_type: str = "regular",
        eval_every: int = 1,
    ) -> None:
        super().__init__(horizon, opt_steps, "zero", rollout_type, eval_every)
        if not 2 <= topk < num_samples:
            raise ValueError(
                f"planner.topk must be at least 2 and below planner.num_samples={num_samples} (elites are chosen from "
                f"the samples), got {topk}"
            )
        if var_scale <= 0:
            raise ValueError(f"planner.var_scale must be > 0, got {var_scale}")
        self.num_samples, self.topk, self.var_scale = num_samples, topk, var_scale

    @torch.no_grad()
    def optimize(self, cost: CostFn, actions_init: Tensor, noise: EpisodeNoise) -> Plan:
        """See ``Planner.optimize``."""
        mean, std = actions_init.detach(), torch.full_like(actions_init, self.var_scale)
        trace: list[tuple[int, Tensor]] = []
        for step in range(self.opt_steps):
            samples = mean[:, None] + std[:, None] * noise.randn(self.num_samples, *mean.shape[1:])
            samples[:, 0] = mean
            costs = cost(samples)  # (B, N)
            best = costs.topk(self.topk, dim=1, largest=False).indices
            elites = samples.gather(1, best[:, :, None, None].expand(-1, -1, *mean.shape[1:]))
            if step % self.eval_every == 0:
                trace.append((step, costs[:, 0]))
            mean, std = elites.mean(1), elites.std(1)
        final = cost(mean[:, None]).squeeze(1)
        trace.append((self.opt_steps, final))
        return Plan(mean, final, trace, self.opt_steps * self.num_samples + 1, 0)

    def _fresh_actions(self, steps: int, noise: EpisodeNoise, zero_action: Tensor) -> Tensor:
        return torch.zeros(len(noise), steps, zero_action.numel(), device=zero_action.device)
