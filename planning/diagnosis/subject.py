"""What is diagnosed: a finished evaluation, which can be put back to where any of its plans was made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from datasets.units.folding import fold_actions
from envs.base import VectorEnv
from models.latent import Latent
from planning.diagnosis.course import watch
from planning.episode_record import EpisodeRecord
from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import ActionSpace
from planning.request import PlanRequest
from planning.simulated import Branches
from planning.task import PlanningTask


@dataclass(frozen=True)
class Subject:
    """A finished evaluation, of which some episodes are looked at.

    Attributes:
        task: What it was about.
        controller: What planned in it.
        record: What happened.
        rows: (b,) numbers of the episodes that are looked at, ascending.
        simulator: A second simulator, in which plans are carried out.
    """

    task: PlanningTask
    controller: MPCController
    record: EpisodeRecord
    rows: Tensor
    simulator: VectorEnv

    @cached_property
    def ends(self) -> list[int]:
        """Raw steps executed after 0, 1, ... iterations, as many as the evaluation might have made."""
        iterations = self.controller.max_iter or len(self.record.iteration_ends) - 1
        return [blocks * self.task.frameskip for blocks in self.controller.executed(iterations)]

    @property
    def num_blocks(self) -> int:
        """Blocks of the whole budget."""
        return self.ends[-1] // self.task.frameskip

    @property
    def iterations(self) -> range:
        """Iterations whose plans the shared model can imagine again: all, or the first if episodes had their own."""
        return range(1 if self.controller.adaptation is not None else self.record.planned.shape[1])

    @cached_property
    def distance(self) -> GoalDistance:
        """What the objective makes of a single frame, the unit of every latent distance and error here."""
        return GoalDistance("last", self.task.objective.alpha)

    def frame_distances(self, latent: Latent, goal: Latent) -> Tensor:
        """Distances (b, T) of each of the frames (b, T) to ``goal``, (b, 1) or (b, T)."""
        shape, frames = latent.proprio.shape[:2], latent.map(lambda part: part.flatten(0, 1)[:, None])
        goals = goal.map(lambda part: part.expand(*shape, *part.shape[2:]).flatten(0, 1)[:, None])
        return self.distance(frames, goals).unflatten(0, shape)

    def judged(self, iteration: int, horizon: int) -> list[int]:
        """Frames 1 ... ``horizon`` of an iteration's plan at whose moment an arrival would count."""
        begin = int(self.record.iteration_ends[iteration])
        return [t for t in range(1, horizon + 1) if begin + t * self.task.frameskip in self.ends]

    def plans(self, iteration: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Episodes (n,) of ``rows`` that an iteration planned for, and their plans (n, T, A) as z-scored blocks."""
        kept = rows[torch.from_numpy(self.record.planned)[rows, iteration]]
        raw = torch.from_numpy(self.record.plans)[kept, iteration]
        length = int(raw.isfinite().all(2).all(0).sum()) if len(kept) else 0
        return kept, self.blocks(raw[:, :length])

    def blocks(self, raw: Tensor) -> Tensor:
        """z-scored blocks (b, T, A) of raw actions (b, T * frameskip, env_action_dim)."""
        observer = self.task.observer
        return observer.normalizer.actions_to_z(fold_actions(raw, self.task.frameskip)).to(observer.device)

    def fitted(self, raw: Tensor, horizon: int) -> Tensor:
        """The first ``horizon`` z-scored blocks of raw actions (b, n, env_action_dim), completed by doing nothing."""
        steps = horizon * self.task.frameskip
        nothing = raw.new_zeros(len(raw), max(0, steps - raw.shape[1]), raw.shape[2])
        return self.blocks(torch.cat([raw[:, :steps], nothing], 1))

    def clipped(self, actions: Tensor) -> Tensor:
        """Clip single z-scored actions (..., env_action_dim), on the CPU, to where the planner was kept, if it was."""
        if not self.controller.planner.clip_actions:
            return actions
        low, high = self._space.low, self._space.high
        assert low is not None and high is not None, "a planner that clips has refused to plan without them"
        return actions.clamp(low[: actions.shape[-1]].cpu(), high[: actions.shape[-1]].cpu())

    @cached_property
    def _space(self) -> ActionSpace:
        return self.request(0, self.rows[:1]).space

    def branches(self, iteration: int, rows: Tensor) -> Branches:
        """Where the episodes were before an iteration, to go on from in the simulator."""
        played = torch.from_numpy(self.record.actions)[rows, : int(self.record.iteration_ends[iteration])]
        return Branches(self.simulator, self.task.problem.part(rows), played)

    def request(self, iteration: int, rows: Tensor, simulated: bool = False) -> PlanRequest:
        """What the planner was asked in an iteration for episodes ``rows`` (n,), without what its last plan left over.

        Args:
            iteration: Counted from 0.
            rows: Some of those looked at.
            simulated: Whether its cost executes candidates in the simulator, instead of asking the model.
        """
        task, controller, planner = self.task, self.controller, self.controller.planner
        executed, device = int(self.record.iteration_ends[iteration]) // task.frameskip, task.observer.device
        seen = min(executed + 1, task.observer.model.num_hist, planner.rollout.num_context or executed + 1)
        places = torch.from_numpy(np.searchsorted(self.rows.numpy(), rows.numpy()))
        known = task.initial_actions
        past = torch.from_numpy(self.record.actions)[rows, : executed * task.frameskip]
        return PlanRequest(
            planner=planner,
            observer=task.observer,
            frameskip=task.frameskip,
            objective=task.objective.at(executed, planner.horizon, controller.n_taken_actions),
            context=self._seen[places, executed + 1 - seen : executed + 1],
            goal=task.goal[rows.to(device)],
            noise=EpisodeNoise.derive(task.seed, [task.problem.seeds[row] for row in rows.tolist()], iteration, device),
            past_actions=self.blocks(past)[:, executed + 1 - seen :] if executed else None,
            warm_start=None if iteration or known is None else known[rows.to(device)],
            horizon=controller.horizon(iteration, executed),
            speed=task.speed,
            memory_budget_gb=task.memory_budget_gb,
            branches=self.branches(iteration, rows) if simulated else None,
        )

    @cached_property
    def _seen(self) -> Latent:
        """Latents (b, N) of what the episodes showed at the start and after every block, up to the last plan's."""
        steps = int(self.record.iteration_ends[self.iterations[-1]])
        played = torch.from_numpy(self.record.actions)[self.rows, :steps]
        start = self.branches(0, self.rows)
        return watch(start, self.task.observer, played, self.task.frameskip).latent
