"""What a planner minimises: how far an imagined rollout is from the goal."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import torch
from torch import Tensor

from models.latent import Latent
from utils.ranges import NonNegative, Positive

SETTINGS: dict[str, dict[str, Any]] = {
    "last": {},
    "all": {"base": 2.0, "first_frame": True},
    "staged": {"base": 2.0, "first_frame": True},
    "deadline": {},
    "soft_min": {"temperature": 0.3},
    "auto": {},
}
"""The modes, and the settings that each reads beside alpha, with their defaults."""

REPLANNED: dict[str, Any] = {"mode": "all", "base": 1.0}
"""What ``auto`` stands for where only the beginning of a plan is carried out: chosen in docs/objectives.md."""

SMALLEST_SCALE = 1e-6  # of a soft minimum, for episodes that begin at their goal


class GoalDistance:
    """Mean squared distance of a rollout's frames to the goal latent: visual part + ``alpha`` x proprio part.

    Frame 0 is the present, and T blocks are planned. ``mode`` says which frames count:

    - "last": frame T. In a closed loop with a fixed horizon the goal then stays T blocks away for ever.
    - "all": frame t by ``base ** t``, normalised to sum 1, divided by the number of frames.
    - "staged": "last" until T blocks were executed, then "all".
    - "deadline": all frames from the end of the first plan on, equally; once that end has passed, all but frame 0.
    - "soft_min": the soft minimum, over the frames k = 1 ... T, of the mean over the frames k ... T: arrive as early as
      you can and stay.
    - "auto": "last" where a plan is carried out to its end, else ``REPLANNED``.

    Those that depend on the place in a closed loop (see ``at``) are "last" outside of one.

    Source: DINO-WM's objective ("last", "all"); arXiv 2603.12231 ("staged"). Deviation: "all" with base 0.5, as once
    released, has half of its weight on the constant frame 0 and 1.6 % on frame T.

    Args:
        mode: See above.
        alpha: Weight of the proprio part, >= 0.
        base: > 0; above 1 later frames count more, below 1 earlier ones. None means 2.
        first_frame: Whether "all" includes frame 0. That is constant, so it changes no planner's decision.
        temperature: Temperature of the soft minimum, in units of the present's distance to the goal, > 0. None
            means 0.3.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    def __init__(
        self,
        mode: str = "last",
        alpha: NonNegative = 1.0,
        base: Positive | None = None,
        first_frame: bool | None = None,
        temperature: Positive | None = None,
    ) -> None:
        if mode not in SETTINGS:
            raise ValueError(f"objective.mode must be one of {', '.join(SETTINGS)}, got {mode!r}")
        if not 0 <= alpha < math.inf:
            raise ValueError(f"objective.alpha must be >= 0 and finite, got {alpha}")
        for key, value in (("base", base), ("temperature", temperature)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"objective.{key} must be > 0 and finite, got {value}")
        given = {"base": base, "first_frame": first_frame, "temperature": temperature}
        given = {key: value for key, value in given.items() if value is not None}
        for key, value in given.items():
            if key not in SETTINGS[mode]:
                readers = [f"objective={name}" for name, settings in SETTINGS.items() if key in settings]
                raise ValueError(
                    f"objective.{key}={value} has no effect with objective.mode={mode}; use {' or '.join(readers)}"
                )
        self.mode, self.alpha = mode, alpha
        self.settings = SETTINGS[mode] | given
        self._due = 1  # the first frame that counts under a deadline

    def __str__(self) -> str:
        """Name mode and settings as results do: "all, base 0.5, alpha 1"."""
        told = {key: value for key, value in self.settings.items() if key != "first_frame" or not value}
        return ", ".join([self.mode, *(f"{key} {value:g}" for key, value in {**told, "alpha": self.alpha}.items())])

    @property
    def sees_only_last(self) -> bool:
        """Whether only the last frame of a rollout is looked at, so that the others need not be kept."""
        return self.mode in ("last", "staged", "auto")

    def first_seen(self, last: int) -> int:
        """Number of the first frame of a rollout 0 ... ``last`` that is looked at."""
        if self.sees_only_last:
            return last
        return min(self._due, last) if self.mode == "deadline" else 0

    def frames_seen(self, last: int) -> int:
        """How many of the imagined frames 1 ... ``last`` have to be drawn and encoded where a simulator imagines."""
        return last - max(1, self.first_seen(last)) + 1

    def at(self, executed: int, horizon: int, taken: int) -> GoalDistance:
        """What one plan of a closed loop minimises.

        Args:
            executed: Blocks executed before it.
            horizon: Blocks of a full plan.
            taken: How many of its blocks are executed.
        """
        if self.mode == "auto":
            chosen = {"mode": "last"} if taken >= horizon else REPLANNED
            return GoalDistance(alpha=self.alpha, **chosen).at(executed, horizon, taken)
        if self.mode == "staged":
            return GoalDistance("last", self.alpha) if executed < horizon else self._as("all")
        if self.mode == "deadline":
            return self._as("deadline", due=max(1, horizon - executed))
        return self

    def _as(self, mode: str, due: int = 1) -> GoalDistance:
        plain = copy.copy(self)
        plain.mode, plain._due = mode, due
        return plain

    def __call__(self, rollout: Latent, goal: Latent) -> Tensor:
        """Cost (B,) of ``rollout`` (B, T + 1), whose first frame is the present, towards ``goal`` (B, 1)."""
        if self.sees_only_last:
            rollout = rollout[:, -1:]
        # mean over features last, so that each frame keeps its own value until it is weighted
        visual = (_wide(rollout.visual) - goal.visual).square().mean((2, 3))
        cost = visual + self.alpha * (_wide(rollout.proprio) - goal.proprio).square().mean(2)  # (B, T + 1)
        if self.sees_only_last:
            return cost[:, 0]
        if self.mode == "soft_min":
            return self._soft_minimum(cost)
        weights, count = self._weights(cost)
        return (cost * weights).sum(1) / count

    def _weights(self, cost: Tensor) -> tuple[Tensor, int]:
        """Weights of the frames (T + 1,), with sum 1, and what their mean is divided by."""
        frames = cost.shape[1]
        if self.mode == "deadline":
            return _frame_weights(1.0, self.first_seen(frames - 1), frames, cost.device, cost.dtype), 1
        skipped = 0 if self.settings["first_frame"] else 1
        return _frame_weights(self.settings["base"], skipped, frames, cost.device, cost.dtype), frames - skipped

    def _soft_minimum(self, cost: Tensor) -> Tensor:
        """Soft minimum (B,) over frames k of the mean of ``cost`` (B, T + 1) from k on.

        Frame 0, which no action changes, sets the scale.
        """
        scale = (self.settings["temperature"] * cost[:, :1].detach()).clamp_min(SMALLEST_SCALE)
        num = cost.shape[1] - 1
        later = torch.ones(num, num, device=cost.device, dtype=cost.dtype).triu()
        stays = (cost[:, None, 1:] * (later / later.sum(1, keepdim=True))).sum(2)  # (B, T) if it stays from k on
        return scale[:, 0] * (math.log(num) - torch.logsumexp(-stays / scale, 1))


@functools.lru_cache(maxsize=64)  # every step of every plan asks for the same
def _frame_weights(base: float, first: int, frames: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """``base ** t`` (frames,) from the ``first`` frame on, else 0, with sum 1."""
    frame = torch.arange(frames, device=device, dtype=dtype)
    weight = base**frame * (frame >= first)
    return weight / weight.sum()


def _wide(values: Tensor) -> Tensor:
    """Widen to at least float32: in bf16 nearly all candidates of a search would cost the same."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
