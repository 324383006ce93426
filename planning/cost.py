"""The cost of candidate actions under a world model: the one place where candidates fold into the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.latent import Latent, cat_latents
from models.rollout import Imagination
from models.rollout_type import ROLLOUT_TYPES, RolloutType
from models.speed.compiling import AUTO
from models.world_model import WorldModel
from planning.objectives import GoalDistance
from planning.planners.plan import RolloutFlops
from utils.ranges import MemoryBudget

CPU_CACHE_BYTES = 16 * 2**20
"""On a CPU, chunks without gradients are no larger than about this: what fits the cache runs 1.5 times as fast."""
CPU_MIN_ROWS = 8  # but not so small that matrix products become thin
GPU_SHARE = 0.25  # of a GPU's memory, for the activations that a gradient needs
ENOUGH_GB = 4.0  # without gradients, larger chunks are no faster


class LatentGoalCost:
    """Differentiable ``cost(actions (B, N, T, A)) -> (B, N)``, of all problems or of some.

    Rows are imagined independently, in chunks that fit ``memory_budget_gb``; with gradients each chunk is
    differentiated before the next one starts, so the peak does not grow with B or N.

    Args:
        model: In eval mode, its weights frozen, see ``models.world_model.planning_mode``.
        objective: Compares a rollout with the goal.
        context: (B, F0) latents of the real frames so far, the present last.
        past_actions: (B, F0 - 1, A) z-scored blocks executed between them.
        goal: (B, 1) goal latent.
        rollout: What the predictor sees at each step.
        memory_budget_gb: For the activations of one chunk; "auto": 4, with gradients on a GPU a quarter of its memory.
        progress: Called with the number of rows just imagined.
        capturable: See ``planning.planners.plan.CostFn``.
        whole_episodes: Whether chunks keep an episode's candidates together where they fit.
        rollout_flops: See ``planning.planners.plan.CostFn``.
    """

    def __init__(
        self,
        model: WorldModel,
        objective: GoalDistance,
        context: Latent,
        past_actions: Tensor,
        goal: Latent,
        rollout: RolloutType = ROLLOUT_TYPES["regular"],
        memory_budget_gb: MemoryBudget = AUTO,
        progress: Callable[[int], None] | None = None,
        capturable: bool = False,
        whole_episodes: bool = False,
        rollout_flops: Callable[[int], RolloutFlops] | None = None,
    ) -> None:
        self.rollout_flops = rollout_flops
        self.capturable, self.whole_episodes = capturable, whole_episodes
        self.model, self.objective = model, objective
        self.context, self.past_actions, self.goal = context, past_actions, goal
        with torch.no_grad():
            self._imagine = Imagination(model, context, past_actions, rollout.num_context, rollout.tiles_proprio)
        self._budget_gb = memory_budget_gb
        self.progress = progress

    def __call__(self, actions: Tensor, problems: Tensor | None = None) -> Tensor:
        """Cost (b, N) of z-scored ``actions`` (b, N, T, A) in ``problems`` (b,); None means all B, in their order."""
        n, flat = actions.shape[1], actions.flatten(0, 1)
        with_grad = torch.is_grad_enabled() and flat.requires_grad
        rows = self._rows_at_a_time(actions.shape[2], with_grad)
        if self.whole_episodes and rows > n:
            rows -= rows % n
        if problems is None and n == 1 and len(flat) <= rows:
            with torch.set_grad_enabled(with_grad):
                return self._rows(flat, None)[:, None]
        episodes = self._everyone(actions) if problems is None else problems
        episodes = episodes.repeat_interleave(n, output_size=len(flat))
        if with_grad and len(flat) > rows:
            cost = _ChunkedCost.apply(flat, self, episodes, rows)
        else:
            chunks = zip(flat.split(rows), episodes.split(rows), strict=True)
            with torch.set_grad_enabled(with_grad):  # or weights that are not frozen would keep every chunk's graph
                cost = torch.cat([self._rows(*chunk) for chunk in chunks])
        return cost.view(actions.shape[:2])

    def imagine(self, actions: Tensor) -> Latent:
        """Imagine what follows from ``actions`` (B, T, A): latents (B, T + 1), the present first; no gradients."""
        with torch.no_grad():
            rows = self._rows_at_a_time(actions.shape[1], with_grad=False)
            parts = zip(actions.split(rows), self._everyone(actions).split(rows), strict=True)
            chunks = [self._rollout(*part) for part in parts]
        return cat_latents(chunks, 0)

    def _rows_at_a_time(self, num_steps: int, with_grad: bool) -> int:
        per_row = self.model.rollout_bytes(self.past_actions.shape[1] + num_steps, with_grad)
        rows = max(1, self._budget(with_grad) // per_row)
        if not with_grad and self.past_actions.device.type == "cpu":
            rows = min(rows, max(CPU_MIN_ROWS, CPU_CACHE_BYTES // per_row))
        return rows

    def _budget(self, with_grad: bool) -> int:
        if not isinstance(self._budget_gb, str):
            return int(self._budget_gb * 2**30)
        device = self.past_actions.device
        if device.type == "cuda" and with_grad:
            return int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
        return int(ENOUGH_GB * 2**30)

    def _rows(self, actions: Tensor, episode: Tensor | None) -> Tensor:
        """Cost (R,) of rows ``actions`` (R, T, A) that go on from each its ``episode`` (R,); None: from row r's."""
        only_last = self.objective.sees_only_last
        rollout = self._imagine(actions, episode, only_last) if only_last else self._rollout(actions, episode)
        cost = self.objective(rollout, self.goal if episode is None else self.goal[episode])
        if self.progress is not None and not (actions.is_cuda and torch.cuda.is_current_stream_capturing()):
            self.progress(actions.shape[0])
        return cost

    def _everyone(self, actions: Tensor) -> Tensor:
        return torch.arange(len(actions), device=actions.device)

    def _rollout(self, actions: Tensor, episode: Tensor | None) -> Latent:
        present = self.context[:, self.context.num_frames - 1 :]
        present = present if episode is None else present[episode]
        return cat_latents([present, self._imagine(actions, episode)], 1)


class _ChunkedCost(torch.autograd.Function):
    """Rows do not influence each other, so each chunk's gradient can be taken as soon as its cost is known."""

    @staticmethod
    def forward(ctx: Any, actions: Tensor, cost: LatentGoalCost, episodes: Tensor, rows: int) -> Tensor:
        """Costs of all rows (B * N,); keeps their gradients instead of the graph."""
        values, gradients = [], []
        for part, episode in zip(actions.split(rows), episodes.split(rows), strict=True):
            chunk = part.detach().requires_grad_()
            with torch.enable_grad():
                value = cost._rows(chunk, episode)
                gradients.append(torch.autograd.grad(value.sum(), chunk)[0])
            values.append(value.detach())
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        """Scale each row's kept gradient."""
        (gradients,) = ctx.saved_tensors
        return gradients * upstream[0][:, None, None], None, None, None
