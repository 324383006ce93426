"""Planning by limited-memory BFGS on the actions: gradient descent that learns the curvature of the cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

from planning.planners.descent import lowest
from planning.planners.gd import MultiStartPlanner
from planning.planners.noise import EpisodeNoise
from planning.planners.search import Search
from utils.ranges import Count, Positive, Small

SUFFICIENT = 1e-4  # share of the decrease that the slope promises which a step has to reach
CURVED = 1e-3  # cosine between a step and its change of the gradient from which on it counts as curving up
DOWNHILL = 1e-4  # cosine between a direction and the descent from which on it is followed


class Curvature:
    """What the last steps of R independent searches told about the inverse Hessian of each.

    An empty place is all zeros and drops out of the recursion, so rows may know different numbers of steps. All that
    is learnt lies in the same memory until ``keep``, so that learning can be part of a CUDA graph.

    Args:
        like: (R, D) any tensor of that size.
        memory: Steps to remember, >= 1.

    Attributes:
        scale: (R,) what multiplies the gradient where nothing else is known.
    """

    def __init__(self, like: Tensor, memory: int) -> None:
        self._kept = like.new_zeros(memory, 4, *like.shape)  # oldest first: steps, changes, both over their product
        self.scale = like.new_zeros(len(like))

    def add(self, step: Tensor, change: Tensor, rows: Tensor) -> Tensor:
        """Learn from the ``rows`` (R,) whose ``step`` (R, D) bent the cost up, and forget the oldest.

        Args:
            step: The steps.
            change: (R, D) change of the gradient over each.
            rows: Which of them to learn from.

        Returns:
            Which rows bent the cost up: (R,) bool.
        """
        bend, square = (step * change).sum(1), change.square().sum(1)
        good = rows & (bend > CURVED * vector_norm(step, dim=1) * square.sqrt())
        torch.where(good, bend / square, self.scale, out=self.scale)
        pair = torch.stack([step, change])
        newer = torch.cat([self._kept[1:], torch.cat([pair, pair / bend[:, None]])[None]])
        torch.where(good[:, None], newer, self._kept, out=self._kept)
        return good

    def keep(self, rows: Tensor) -> None:
        """Forget all but ``rows`` (r,)."""
        self._kept, self.scale = self._kept[:, :, rows], self.scale[rows]

    def direction(self, gradient: Tensor) -> Tensor:
        """Minus the inverse Hessian times ``gradient`` (R, D), by the two-loop recursion."""
        places = self._kept.flatten(0, 1).unbind(0)
        pairs = [places[first : first + 4] for first in range(0, len(places), 4)]
        found, weights = gradient, []
        for _, change, scaled_step, _ in reversed(pairs):
            weights.append((scaled_step * found).sum(1, keepdim=True))
            found = torch.addcmul(found, weights[-1], change, value=-1)
        found = self.scale[:, None] * found
        for step, _, _, scaled_change in pairs:
            found = torch.addcmul(found, weights.pop() - (scaled_change * found).sum(1, keepdim=True), step)
        return -found


class QuasiNewton:
    """R searches side by side, each with its own curvature, step length and accepted point.

    One evaluation of all rows is one step: a row whose trial is low enough moves there and gets a new direction, any
    other tries a shorter step. So no row waits for another's line search, and every step costs the same. All tensors
    stay in the same memory until ``keep``, see ``Curvature``.

    Args:
        start: (R, D) points to start from.
        memory: See ``Curvature``.
        longest_step: See ``LBFGSPlanner``.
        clip: Keeps points (..., R, D) within a box; None: there is none.

    Attributes:
        trial: (R, D) points to be evaluated next.
        value: (R,) cost of the accepted points.
    """

    def __init__(
        self,
        start: Tensor,
        memory: int,
        longest_step: float,
        clip: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._longest_step, self._clip = longest_step, clip
        self._curvature = Curvature(start, memory)
        self._point, self._gradient, self._step = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
        self.trial, self.value = start.clone(), start.new_full(start.shape[:1], torch.inf)

    def keep(self, rows: Tensor) -> None:
        """End all searches but ``rows`` (r,)."""
        self._curvature.keep(rows)
        self._point, self._gradient, self._step = (each[rows] for each in (self._point, self._gradient, self._step))
        self.trial, self.value = self.trial[rows], self.value[rows]

    def observe(self, value: Tensor, gradient: Tensor) -> None:
        """Take in cost (R,) and gradient (R, D) of ``trial``, and choose the next one."""
        step, scale = self.trial - self._point, self._curvature.scale
        promised = (step * self._gradient).sum(1)
        finite = (value + gradient.sum(1)).isfinite()
        moved = (value <= self.value + SUFFICIENT * promised) & finite
        begun, longest = self.value < torch.inf, self._longest_step / _size(gradient)
        bent = self._curvature.add(step, gradient - self._gradient, moved & begun)
        # where the cost curves down no quadratic has a minimum: go farther; at first nothing is known: go far
        farther = torch.where(begun, torch.minimum(2 * scale, longest), longest)
        torch.where(moved & ~bent, farther, scale, out=scale)
        # a row that stays tries the lowest point of the parabola through both costs and the slope
        shorter = (0.5 * promised / (promised - value + self.value)).nan_to_num(0.1).clamp(0.1, 0.5)
        taken = moved[:, None]
        torch.where(taken, self.trial, self._point, out=self._point)
        torch.where(taken, gradient, self._gradient, out=self._gradient)
        torch.where(moved, value, self.value, out=self.value)
        torch.where(taken, self._new_step(), shorter[:, None] * self._step, out=self._step)
        self.trial.copy_(self._boxed(self._point + self._step))

    def _new_step(self) -> Tensor:
        """The next step (R, D) from the accepted points; along the gradient where the curvature's would not descend."""
        gradient = self._gradient
        if self._clip is not None:
            held = (self._clip(self._point - 1e-3 * gradient.sign()) == self._point) & (gradient != 0)
            gradient = gradient.masked_fill(held, 0)  # at the edge of the box, and drawn outwards
        direction = self._curvature.direction(gradient)
        if self._clip is not None:
            direction = direction.masked_fill(held, 0)
        steps = torch.stack([direction, -self._curvature.scale[:, None] * gradient])
        steps = steps * (self._longest_step / _size(steps)).clamp_max(1)[..., None]
        step, plain = (self._boxed(self._point + steps) - self._point if self._clip is not None else steps).unbind(0)
        slope = (step * gradient).sum(1)
        downhill = slope < -DOWNHILL * vector_norm(step, dim=1) * vector_norm(gradient, dim=1)
        return torch.where(downhill[:, None], step, plain)

    def _boxed(self, points: Tensor) -> Tensor:
        return points if self._clip is None else self._clip(points)


def _size(steps: Tensor) -> Tensor:
    """Root mean square (...) of the entries of each row (..., D), above zero."""
    return steps.square().mean(-1).sqrt().clamp_min(1e-12)


class LBFGSPlanner(MultiStartPlanner):
    """L-BFGS through the world model, all episodes and starts in one batch, each with a curvature of its own.

    A step takes one differentiated rollout per start, as a step of ``GDPlanner`` does; there is no learning rate.
    Arguments not listed here are those of ``MultiStartPlanner``.

    Args:
        memory: Steps whose curvature is remembered, >= 1.
        longest_step: Root mean square change of an action entry in one step, z-scored, > 0. The first step tries it,
            as no curvature is known yet.

    Source: Nocedal and Wright, Numerical Optimization, 2006, algorithms 7.4 (recursion) and 3.1 (backtracking).
    Deviation: only sufficient decrease is asked of a step, as rows would need different numbers of gradients for the
    Wolfe conditions; a step that fails the curvature condition is not remembered instead (Li and Fukushima 2001).
    """

    def __init__(
        self,
        horizon: Small = 5,
        opt_steps: Count = 50,
        memory: Small = 8,
        longest_step: Positive = 1.0,
        sample_type: str = "randn",
        num_starts: Count = 1,
        **common: Any,
    ) -> None:
        if memory < 1:
            raise ValueError(f"planner.memory must be at least 1, got {memory}")
        if not 0 < longest_step < math.inf:
            raise ValueError(f"planner.longest_step must be > 0 and finite, got {longest_step}")
        self.memory, self.longest_step = memory, longest_step
        super().__init__(horizon, opt_steps, sample_type, num_starts, **common)

    def _search(self, search: Search, start: Tensor, noise: EpisodeNoise) -> None:
        starts = self._starts(search, start, noise)
        shape = starts.shape  # (B, N, T, A); the searches see rows (B N, T A)

        def clip(points: Tensor) -> Tensor:
            return search.clip(points.unflatten(-1, shape[2:])).flatten(-2)

        rows = QuasiNewton(
            starts.reshape(-1, start[0].numel()), self.memory, self.longest_step, clip if search.clips else None
        )

        def advance() -> None:  # in place throughout: it may be captured
            values, gradients = search.differentiate(rows.trial.view(shape))
            rows.observe(values.flatten(), gradients.reshape(rows.trial.shape))

        for stage in self._stages(search):
            if stage.kept < shape[1]:
                first = shape[1] * torch.arange(len(start), device=start.device)[:, None]
                rows.keep((first + lowest(rows.value.view(shape[:2]), stage.kept)).flatten())
                shape = torch.Size([len(start), stage.kept, *start.shape[1:]])
            step = search.captured(advance, stage.length)
            for _ in stage.steps:
                step()
                search.count_gradients(starts[:, : stage.kept])
                if step.replays:
                    search.show_progress(starts[:, : stage.kept])
                search.record(rows.value.view(shape[:2]).amin(1))
        search.values(rows.trial.view(shape))
