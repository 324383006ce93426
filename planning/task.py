"""What a controller plans for: an aim and, in an evaluation, the simulator that its episodes are played in."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from envs.base import VectorEnv
from models.latent import Latent, cat_latents
from models.speed.compiling import AUTO
from models.speed.fast_paths import FastPaths
from planning.episodes import Episodes
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.problem import Problem
from planning.recording import Recorder
from planning.simulated import Branches
from utils import distributed
from utils.ranges import MemoryBudget

log = logging.getLogger(__name__)


class Aim(ABC):
    """What deciding needs to know besides the planner and what the episodes have shown.

    Attributes:
        observer: Encodes what is seen.
        goal: (B, 1) latents of the goals.
        objective: Distance of an imagined rollout to the goal.
        seed: Of the planner's own randomness.
        frameskip: Raw steps of an action block.
        memory_budget_gb: See ``LatentGoalCost``.
        speed: How the model is prepared for rollouts.
        shared: Whether all of several processes have these same episodes: each then plans for its share of them.
    """

    observer: Observer
    goal: Latent
    objective: GoalDistance
    seed: int
    frameskip: int
    memory_budget_gb: MemoryBudget
    speed: FastPaths
    shared: bool

    @abstractmethod
    def executed(self, episodes: Episodes) -> int:
        """Blocks executed so far."""

    @abstractmethod
    def noise_seeds(self, rows: Tensor) -> list[int]:
        """What the planner's randomness in the episodes ``rows`` (b,) is derived from, beside ``seed``."""

    def branches(self, episodes: Episodes, rows: Tensor) -> Branches | None:
        """What rolls plans for ``rows`` (b,) out in a simulator; None where the model imagines them."""
        return None


@dataclass(frozen=True)
class PlanningTask(Aim):
    """Everything a controller needs besides its planner to play episodes in a simulator.

    Attributes not listed here are those of ``Aim``.

    Attributes:
        env: The simulator; its episodes are replaced.
        problem: Starts and goals.
        initial_actions: (B, T, A) z-scored start of the first plan, in the place of the planner's own.
        recorder: Shows some episodes after every iteration.
        rollout_env: A second simulator, in which plans are rolled out instead of imagined; None: the model imagines.
        saves_latents: Whether what is imagined of whole plans is kept.
    """

    env: VectorEnv
    observer: Observer
    problem: Problem
    goal: Latent
    objective: GoalDistance
    seed: int
    frameskip: int
    memory_budget_gb: MemoryBudget = AUTO
    initial_actions: Tensor | None = None
    recorder: Recorder | None = None
    rollout_env: VectorEnv | None = None
    speed: FastPaths = field(default_factory=FastPaths)
    saves_latents: bool = False
    shared: bool = False

    def start(self) -> Episodes:
        """Put the environment's episodes at their starts."""
        states = self.env.reset(self.problem.seeds, self.problem.states, self.problem.layouts)
        latent = self.observer.present(self.env, states)
        action_dim = self.frameskip * self.env.env_action_dim
        return Episodes.begin(states, latent, action_dim, self.env.env_action_dim, self.initial_actions)

    def resume(self, episodes: Episodes) -> None:
        """Put the environment back to where ``episodes`` were saved.

        By playing everything again: a state does not always say all (PushT's contacts, a reset that takes a step).
        """
        self.env.reset(self.problem.seeds, self.problem.states, self.problem.layouts)
        if episodes.played.shape[1]:
            again = self.env.step(episodes.played)[:, -1]
            if not torch.equal(again, episodes.states):
                farthest = (again - episodes.states).abs().max().item()
                log.warning("played again, the episodes end up to %g from where they were: another machine?", farthest)
                episodes.states = again

    def executed(self, episodes: Episodes) -> int:
        """See ``Aim``."""
        return episodes.played.shape[1] // self.frameskip

    def noise_seeds(self, rows: Tensor) -> list[int]:
        """The environment seeds."""
        return [self.problem.seeds[row] for row in rows.tolist()]

    def execute(self, episodes: Episodes, rows: Tensor, actions: Tensor, sees_all: bool = False) -> Latent:
        """Step the simulator through action blocks and take in what it shows.

        Args:
            episodes: All of them; updated in place. Those that are not among ``rows`` take zero raw actions.
            rows: (b,) the planned ones.
            actions: (b, n, A) z-scored blocks.
            sees_all: Whether every frame is encoded.

        Returns:
            Latents (b, m) of the last m <= n frames: all, or as many as the model's history holds.
        """
        env, limit, steps = self.env, self.observer.model.num_hist, actions.shape[1]
        raw = torch.zeros(len(self.problem), steps * self.frameskip, env.env_action_dim)
        raw[rows] = self.observer.raw_actions(actions)
        episodes.played = torch.cat([episodes.played, raw], 1)
        seen = []
        for k, block in enumerate(raw.split(self.frameskip, 1)):
            episodes.states = env.step(block)[:, -1]
            if sees_all or k >= steps - limit:  # older frames would leave the history at once
                seen.append(self.observer.present(env, episodes.states, rows))
        latent = cat_latents(seen, 1)
        episodes.observe(rows.to(actions.device), actions, latent, limit)
        return latent

    def branches(self, episodes: Episodes, rows: Tensor) -> Branches | None:
        """See ``Aim``."""
        if self.rollout_env is None:
            return None
        return Branches(self.rollout_env, self.problem.part(rows), episodes.played[rows])

    def close(self) -> None:
        """Close its simulators."""
        self.env.close()
        if self.rollout_env is not None:
            self.rollout_env.close()

    def judge(self, episodes: Episodes) -> Tensor:
        """Note which episodes their last iteration solved; returns the distances (B,) of all to their goals."""
        outcome = self.env.success(episodes.states, self.problem.goal_states)
        success = outcome.success.cpu()
        if self.shared:  # all must go on with the same episodes, even if their machines round differently
            success = distributed.broadcast(success)
        episodes.solved_at[success & ~episodes.solved] = episodes.iteration
        return outcome.state_dist

    def any_process(self, here: bool) -> bool:
        """Whether it is so in this process or, if all have these same episodes, in any."""
        return bool(distributed.largest(int(here))) if self.shared else here
