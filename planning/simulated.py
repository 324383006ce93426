"""The cost of candidate actions under the true simulator: what objective and search allow if the model is perfect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from envs.base import VectorEnv
from models.latent import Latent, cat_latents
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.planners.plan import RolloutFlops
from planning.problem import Problem

NO_GRADIENTS = (
    "dynamics=simulator gives no gradients, and this planner wants them: choose one that searches without, planner=cem,"
    " icem or mppi, or mpc_cem, mpc_icem or mpc_mppi"
)


@dataclass(frozen=True)
class Branches:
    """Episodes as they are in the middle of an evaluation, which a simulator of their own can go on with.

    They are played again from their start, so that a branch is what would really follow, to the last bit: a state does
    not say all (PushT's solver remembers contacts, and its reset lets 0.01 s pass).

    Attributes:
        env: Not the simulator that the episodes are executed in: what it played before is lost.
        problem: B starts.
        played: (B, n, env_action_dim) raw actions since then.
    """

    env: VectorEnv
    problem: Problem
    played: Tensor

    def begin(self, rows: Tensor) -> Tensor:
        """Put the simulator to where the episodes ``rows`` (R,) are, which may be repeated: their states (R, S)."""
        problem = self.problem.part(rows)
        states = self.env.reset(problem.seeds, problem.states, problem.layouts)
        return self.env.step(self.played[rows])[:, -1] if self.played.shape[1] else states


class SimulatedGoalCost:
    """``cost(actions (B, N, T, A)) -> (B, N)``, each candidate executed in the simulator; without gradients.

    What the simulator shows is encoded by the model, which imagines nothing. Only the frames that the objective looks
    at are drawn, and a bounded number of candidates is simulated at a time.

    Args:
        branches: Where the episodes are.
        observer: Encodes frames.
        objective: Compares a rollout with the goal.
        present: (B, 1) latents of the episodes' last frames.
        goal: (B, 1) goal latents.
        progress: Called with the number of candidates just simulated.
        rollout_flops: See ``planning.planners.plan.CostFn``.
    """

    def __init__(
        self,
        branches: Branches,
        observer: Observer,
        objective: GoalDistance,
        present: Latent,
        goal: Latent,
        progress: Callable[[int], None] | None = None,
        rollout_flops: Callable[[int], RolloutFlops] | None = None,
    ) -> None:
        self.rollout_flops = rollout_flops
        self.branches, self.observer, self.objective = branches, observer, objective
        self.present, self.goal, self.progress = present, goal, progress

    def __call__(self, actions: Tensor, problems: Tensor | None = None) -> Tensor:
        """Cost (b, N) of z-scored ``actions`` (b, N, T, A) in ``problems`` (b,); None means all B, in their order.

        Raises:
            ValueError: If gradients are asked for.
        """
        if torch.is_grad_enabled() and actions.requires_grad:
            raise ValueError(NO_GRADIENTS)
        n, first = actions.shape[1], self.objective.first_seen(actions.shape[2])
        costs = []
        for blocks, rows in self._chunks(rearrange(actions, "b n t a -> (b n) t a"), problems, n):
            costs.append(self.objective(self._rollout(blocks, rows, first), self.goal[rows]))
            if self.progress is not None:
                self.progress(len(rows))
        return rearrange(torch.cat(costs), "(b n) -> b n", n=n)

    def imagine(self, actions: Tensor) -> Latent:
        """Latents (B, T + 1) of what follows from ``actions`` (B, T, A), the present first."""
        return cat_latents([self._rollout(blocks, rows, 0) for blocks, rows in self._chunks(actions)], 0)

    def _chunks(self, blocks: Tensor, problems: Tensor | None = None, n: int = 1) -> list[tuple[Tensor, Tensor]]:
        """Rows of blocks (R, T, A) with the problem of each, as many as are drawn at a time."""
        everyone = torch.arange(len(blocks) // n, device=blocks.device) if problems is None else problems
        size = self.observer.frames_per_chunk
        return list(zip(blocks.split(size), everyone.repeat_interleave(n).split(size), strict=True))

    @torch.no_grad()
    def _rollout(self, blocks: Tensor, rows: Tensor, first: int) -> Latent:
        """Latents (R, T + 1) of the present and what follows, or of the last frame alone if that is ``first``.

        The present stands for all frames before ``first``, which are not looked at.
        """
        env, num_blocks = self.branches.env, blocks.shape[1]
        self.branches.begin(rows.cpu())
        frames = [self.present[rows]] * max(1, first) if first < num_blocks else []
        raw = self.observer.raw_actions(blocks)
        for number, block in enumerate(raw.split(raw.shape[1] // num_blocks, 1), start=1):
            states = env.step(block)[:, -1]
            if number >= first:
                frames.append(self.observer.present(env, states))
        return cat_latents(frames, 1)
