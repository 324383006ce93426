"""What every planner is: an optimiser of a cost over action blocks. It knows tensors, nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.rollout_type import ROLLOUT_TYPES
from planning.noise import EpisodeNoise

CostFn = Callable[[Tensor], Tensor]
"""z-scored actions (B, N, T, A) -> cost (B, N), differentiable."""

SAMPLE_TYPES = ("randn", "zero", "initnet")


@dataclass(frozen=True)
class Plan:
    """What a planner returns.

    Attributes:
        actions: (B, T, A) z-scored action blocks.
        cost: (B,) their cost under the model.
        trace: (step, (B,) cost) pairs, every ``eval_every`` optimisation steps.
        evaluations: rollouts imagined per episode.
        gradient_evaluations: how many of them were differentiated as well.
    """

    actions: Tensor
    cost: Tensor
    trace: list[tuple[int, Tensor]] = field(default_factory=list)
    evaluations: int = 0
    gradient_evaluations: int = 0


class Planner(ABC):
    """Base of all planners.

    Args:
        horizon: T, blocks planned ahead, >= 1.
        opt_steps: optimisation steps (gradient steps, or CEM iterations), >= 1.
        sample_type: initial actions: "randn" (standard normal), "zero" (zero raw action), "initnet" (a network's).
        rollout_type: "regular": the model sees up to ``num_hist`` frames, as in training; "custom": the last one only;
            "custom_as_released": see ``models/rollout_type.py``.
        eval_every: a cost is recorded for the trace every that many steps, >= 1.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    def __init__(self, horizon: int, opt_steps: int, sample_type: str, rollout_type: str, eval_every: int) -> None:
        for key, value in (("horizon", horizon), ("opt_steps", opt_steps), ("eval_every", eval_every)):
            if value < 1:
                raise ValueError(f"planner.{key} must be at least 1, got {value}")
        if sample_type not in SAMPLE_TYPES:
            raise ValueError(f"planner.sample_type must be one of {', '.join(SAMPLE_TYPES)}, got {sample_type!r}")
        if sample_type == "initnet":
            raise ValueError(
                "planner.sample_type=initnet needs a model with an initialisation network, and none can be trained by "
                "this version yet; use planner.sample_type=randn or zero"
            )
        if rollout_type not in ROLLOUT_TYPES:
            raise ValueError(f"planner.rollout_type must be one of {', '.join(ROLLOUT_TYPES)}, got {rollout_type!r}")
        self.horizon, self.opt_steps, self.eval_every = horizon, opt_steps, eval_every
        self.sample_type = sample_type
        self.rollout = ROLLOUT_TYPES[rollout_type]

    @abstractmethod
    def optimize(self, cost: CostFn, actions_init: Tensor, noise: EpisodeNoise) -> Plan:
        """Lower the cost of each of B independent problems, starting from ``actions_init`` (B, T, A)."""

    def initial_actions(self, noise: EpisodeNoise, zero_action: Tensor, warm_start: Tensor | None = None) -> Tensor:
        """Where ``optimize`` starts: (B, horizon, A) z-scored.

        Args:
            noise: one stream per problem.
            zero_action: (A,) z-scored block that does nothing in raw units.
            warm_start: (B, t, A) what is left of the previous plan; it is completed by new blocks.
        """
        kept = 0 if warm_start is None else min(warm_start.shape[1], self.horizon)
        missing = self.horizon - kept
        fresh = self._fresh_actions(missing, noise, zero_action)
        return fresh if warm_start is None else torch.cat([warm_start[:, :kept], fresh], 1)

    def _fresh_actions(self, steps: int, noise: EpisodeNoise, zero_action: Tensor) -> Tensor:
        if self.sample_type == "randn":
            return noise.randn(steps, zero_action.numel())
        return zero_action.expand(len(noise), steps, -1).clone()
