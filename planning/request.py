"""A plan request: the one place where a planner's cost, noise, action space and warm start are put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.units.quantiles import at_quantiles
from models.adapted import adapted_model
from models.flops import ModelFlops
from models.latent import Latent
from models.speed.compiling import AUTO
from models.speed.fast_paths import FastPaths
from planning.cost import LatentGoalCost
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.planners.base import Planner
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import ActionSpace, Plan, RolloutFlops
from planning.simulated import Branches, SimulatedGoalCost
from utils.ranges import MemoryBudget


@dataclass(frozen=True)
class PlanRequest:
    """One call of a planner: what it plans from and to, for B independent problems at once.

    Attributes:
        planner: The planner that is asked.
        observer: Holds the model, and its units.
        frameskip: Raw steps of an action block.
        objective: Distance of an imagined rollout to the goal.
        context: (B, F) latents of the real frames so far, the present last.
        goal: (B, 1) goal latents.
        noise: One random stream per problem.
        past_actions: (B, F - 1, A) z-scored blocks executed between the frames; None if F is 1.
        warm_start: (B, t, A) z-scored blocks that the first iterate begins with; None leaves it to the planner.
        horizon: Blocks to plan; None means the planner's.
        speed: How the model is prepared for rollouts.
        memory_budget_gb: See ``LatentGoalCost``.
        progress: Called with the number of rollouts just made.
        branches: Roll candidates out in the simulator; None: the model imagines what follows.
        adapted: Weights that each problem has for itself, see ``planning.adaptation``; empty: all share the model.
    """

    planner: Planner
    observer: Observer
    frameskip: int
    objective: GoalDistance
    context: Latent
    goal: Latent
    noise: EpisodeNoise
    past_actions: Tensor | None = None
    warm_start: Tensor | None = None
    horizon: int | None = None
    speed: FastPaths = field(default_factory=FastPaths)
    memory_budget_gb: MemoryBudget = AUTO
    progress: Callable[[int], None] | None = None
    branches: Branches | None = None
    adapted: Mapping[str, Tensor] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Ask the planner."""
        return self.planner.optimize(self.cost, self.start(), self.noise, self.space)

    def start(self) -> Tensor:
        """Initial actions (B, T, A)."""
        return self.planner.initial_actions(self.noise, self.space, self.warm_start, self.horizon)

    @cached_property
    def cost(self) -> LatentGoalCost | SimulatedGoalCost:
        """What is minimised, under the model's present weights or in the simulator."""
        if self.branches is not None:
            present = self.context[:, self.context.num_frames - 1 :]
            given = (self.branches, self.observer, self.objective, present, self.goal, self.progress)
            return SimulatedGoalCost(*given, self.rollout_flops)
        nothing = self.space.zero.new_empty(self.context.batch_size, 0, self.space.zero.numel())
        model, shared = self.observer.model, not self.adapted
        return LatentGoalCost(
            self.speed.prepare(model) if shared else adapted_model(model, self.adapted, self.speed.reuse_history),
            self.objective,
            self.context,
            nothing if self.past_actions is None else self.past_actions,
            self.goal,
            self.planner.rollout,
            self.memory_budget_gb,
            self.progress,
            shared and self.speed.captures(self.observer.device),
            whole_episodes=not shared,  # weights are given out once for each
            rollout_flops=self.rollout_flops,
        )

    def rollout_flops(self, horizon: int) -> RolloutFlops:
        """What one rollout of so many blocks takes."""
        if self.branches is not None:
            return RolloutFlops(self.observer.flops.encoder * self.objective.frames_seen(horizon), 0.0)
        return flops_of_rollout(self.observer.flops, self.planner, horizon, self.context.num_frames)

    @cached_property
    def space(self) -> ActionSpace:
        """What the planner may know of actions; the model's proposal only where the planner begins with it."""
        observer, low, high = self.observer, None, None
        proposal, alternatives = self._proposals() if self.planner.sample_type == "proposal" else (None, None)
        if observer.action_quantiles is not None:
            ends = at_quantiles(observer.action_quantiles, self.planner.clip_quantiles or (0, 1))
            blocks = ends.repeat(1, self.frameskip)
            low, high = observer.normalizer.actions_to_z(blocks).to(observer.device)
        zero = observer.normalizer.zero_block(self.frameskip).to(observer.device)
        return ActionSpace(zero, observer.normalizer.env_action_dim, low, high, proposal, alternatives)

    @torch.no_grad()
    def _proposals(self) -> tuple[Tensor, Tensor]:
        """What the model proposes (B, T, A), and what is left of it for further starts (B, n, T, A)."""
        found = self.observer.model.propose(self.context[:, -1:], self.goal, self.planner.num_starts)
        has_rest = self.warm_start is not None and self.warm_start.shape[1] > 0  # which is the first start then
        return found[:, 0], found if has_rest and self.planner.adds_proposal else found[:, 1:]


class Decision(NamedTuple):
    """What a controller does next in some episodes.

    Attributes:
        rows: (b,) their numbers.
        request: What the planner was asked.
        plan: What that found.
        imagined: (b, n + 1) latents of the part that is to be carried out, the present first.
        actions: (b, n, A) that part, z-scored blocks.
    """

    rows: Tensor
    request: PlanRequest
    plan: Plan
    imagined: Latent
    actions: Tensor


def flops_of_rollout(flops: ModelFlops, planner: Planner, horizon: int, given: int) -> RolloutFlops:
    """What a model takes to imagine ``horizon`` blocks from ``given`` real frames, as ``planner`` asks it to."""
    seen = flops.history if planner.rollout.num_context is None else planner.rollout.num_context
    plain = flops.rollout(horizon, seen, "none", given)
    whole = flops.rollout(horizon, seen, "inputs", given) if planner.differentiates else plain
    return RolloutFlops(plain, whole - plain)
