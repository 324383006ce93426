"""What a planner minimises: how far an imagined rollout is from the goal."""

from __future__ import annotations

import torch
from torch import Tensor

from models.latent import Latent

MODES = ("last", "all")


class GoalDistance:
    """Mean squared distance to the goal latent: visual part + ``alpha`` x proprio part.

    Source: DINO-WM's objective. Deviation: ``last`` is the default; with ``all`` and ``base`` 0.5, as once released,
    half of the weight sits on the constant first frame and 1.6 % on the final one.

    Args:
        alpha: weight of the proprio part, >= 0.
        mode: "last" looks at the final frame only; "all" weights frame t by ``base ** t``, normalised to sum 1, and
            divides by the number of frames.
        base: > 0; above 1 later frames count more. Only with ``mode: all``; None means 2.
    """

    def __init__(self, mode: str = "last", alpha: float = 1.0, base: float | None = None) -> None:
        if mode not in MODES:
            raise ValueError(f"objective.mode must be one of {', '.join(MODES)}, got {mode!r}")
        if alpha < 0:
            raise ValueError(f"objective.alpha must be >= 0, got {alpha}")
        if base is not None and base <= 0:
            raise ValueError(f"objective.base must be > 0, got {base}")
        if mode == "last" and base is not None:
            raise ValueError(f"objective.base={base} has no effect with objective.mode=last; use objective=all")
        self.mode, self.alpha = mode, alpha
        self.base = 2.0 if base is None else base

    @property
    def sees_only_last(self) -> bool:
        """Whether it looks at the last frame of a rollout only, so that the others need not be brought."""
        return self.mode == "last"

    def __call__(self, rollout: Latent, goal: Latent) -> Tensor:
        """Cost (B,) of ``rollout`` (B, T + 1), whose first frame is the present, towards ``goal`` (B, 1)."""
        if self.sees_only_last:
            rollout = rollout[:, -1:]
        # mean over features last, so that each frame keeps its own value until it is weighted
        visual = (_wide(rollout.visual) - goal.visual).square().mean((2, 3))
        cost = visual + self.alpha * (_wide(rollout.proprio) - goal.proprio).square().mean(2)  # (B, T + 1)
        return (cost * self._weights(cost)).sum(1) / cost.shape[1]

    def _weights(self, cost: Tensor) -> Tensor:
        if self.mode == "last":
            return cost.new_ones(())
        weight = self.base ** torch.arange(cost.shape[1], device=cost.device, dtype=cost.dtype)
        return weight / weight.sum()


def _wide(values: Tensor) -> Tensor:
    """At least float32: in bf16 nearly all candidates of a search would cost the same."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
