"""What a controller is given: episodes to solve, and everything that planning for them takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from envs.base import VectorEnv
from models.latent import Latent
from models.speed.compiling import AUTO
from models.speed.fast_paths import FastPaths
from planning.cost import MemoryBudget
from planning.episodes import Episodes
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.problem import Problem
from planning.recording import Recorder


@dataclass(frozen=True)
class PlanningTask:
    """Everything a controller needs besides its planner.

    Attributes:
        env: the simulator; its episodes are replaced.
        observer: encodes what the environment shows.
        problem: starts and goals.
        goal: (B, 1) latents of the goals.
        objective: distance of an imagined rollout to the goal.
        seed: of the planner's own randomness.
        frameskip: raw steps of an action block.
        memory_budget_gb: see ``LatentGoalCost``.
        initial_actions: (B, T, A) z-scored start of the first plan, in the place of the planner's own.
        recorder: records what some episodes saw and imagined.
        speed: how the model is prepared for rollouts.
        shared: whether all of several processes have these same episodes: each then plans for its share of them.
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
    speed: FastPaths = field(default_factory=FastPaths)
    shared: bool = False

    def executed(self, episodes: Episodes) -> int:
        """Blocks executed so far."""
        return episodes.played.shape[1] // self.frameskip
