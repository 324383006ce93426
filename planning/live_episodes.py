"""Episodes that the world outside plays: what an agent has seen and done in them, and what it decides."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import torch
from torch import Tensor

from models.latent import Latent, cat_latents
from planning.answer import Experience
from planning.episodes import Episodes
from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.prepare_evaluation import LoadedModel
from planning.request import Decision
from planning.task import Aim
from utils.ranges import MemoryBudget


class LiveEpisodes(Aim):
    """B episodes, each at one moment; the same as an evaluation's, without a simulator.

    Args:
        controller: Plans.
        loaded: The model.
        objective: What is minimised.
        seed: Of the planner's randomness.
        memory_budget_gb: See ``LatentGoalCost``.
        seen: (B, 1) latents of the first images.
        goal: (B, 1) latents.
        seeds: B numbers, beside ``seed``.

    Attributes:
        queue: Blocks (B, A) of the last plan that are to be given out before the next one; z-scored.
        given: (B, A) the block given out last.
        decision: The last one; None before the first.
    """

    shared = False

    def __init__(
        self,
        controller: MPCController,
        loaded: LoadedModel,
        objective: GoalDistance,
        seed: int,
        memory_budget_gb: MemoryBudget,
        seen: Latent,
        goal: Latent,
        seeds: list[int],
    ) -> None:
        self.observer, self.frameskip, self.speed = loaded.observer, loaded.frameskip, loaded.speed
        self.objective, self.seed, self.memory_budget_gb = objective, seed, memory_budget_gb
        self.goal, self.seeds, self._controller = goal, seeds, controller
        env_action_dim = self.observer.normalizer.env_action_dim
        nothing = torch.zeros(len(seeds), 0)
        self._episodes = Episodes.begin(nothing, seen, env_action_dim * self.frameskip, env_action_dim)
        self._blocks = 0  # executed since the goal was set
        self.queue: list[Tensor] = []
        self.given: Tensor | None = None
        self.decision: Decision | None = None
        self._seen: list[Latent] = []  # since that decision
        self._done: list[Tensor] = []  # what was executed before each of these

    def fork(self) -> LiveEpisodes:
        """Copy the episodes, so that a failed decision can simply be dropped.

        ``take_in`` must come next, which gives them weights of their own.
        """
        other = copy.copy(self)
        other._episodes = replace(self._episodes)
        other.queue, other._seen, other._done = list(self.queue), list(self._seen), list(self._done)
        return other

    def executed(self, episodes: Episodes) -> int:
        """Blocks executed since the goal was set."""
        return self._blocks

    def noise_seeds(self, rows: Tensor) -> list[int]:
        """See ``Aim``."""
        return [self.seeds[row] for row in rows.tolist()]

    def change_goal(self, goal: Latent) -> None:
        """Go to ``goal`` (B, 1) from here on; plans for the former one are dropped."""
        self.goal, self.queue, self._blocks = goal, [], 0
        self._episodes.warm_start = self._episodes.warm_start[:, :0]

    def take_in(self, seen: Latent, executed: Tensor | None = None) -> Experience:
        """Note what is seen (B, 1) after a block.

        Args:
            seen: The latents.
            executed: (B, A) the block; None: the one given out.
        """
        block = self.given if executed is None else executed
        assert block is not None, "a block was given out between two images"
        episodes, rows = self._episodes, torch.arange(len(self.seeds), device=block.device)
        before, past = episodes.context(rows, None)
        actions = torch.cat([past, block[:, None]], 1)
        adapted = episodes.adapted
        episodes.adapted = {name: value.clone() for name, value in adapted.items()}  # learning changes them in place
        episodes.observe(rows, block[:, None], seen, self.observer.model.num_hist)
        self._blocks += 1
        self._seen.append(seen)
        self._done.append(block)
        return Experience(self.observer.model, cat_latents([before, seen], 1), actions, adapted)

    def learn(self) -> None:
        """Learn from what was seen since the last decision, if the controller does that."""
        if self._controller.adaptation is not None and self.decision is not None and self._seen:
            rows, request = self.decision.rows, self.decision.request
            lived = torch.stack(self._done, 1), cat_latents(self._seen, 1)
            self._controller.learn(self, self._episodes, rows, request, *lived)
        self._seen, self._done = [], []

    def decide(self) -> None:
        """Plan anew, and queue what is to be done."""
        self.decision = self._controller.decide(self, self._episodes)
        self.queue = list(self.decision.actions.unbind(1))

    def next_block(self) -> Tensor:
        """Give out the next z-scored block (B, A) of the plan."""
        self.given = self.queue.pop(0)
        return self.given

    def seconds_beside_search(self) -> float:
        """Measure what a decision takes beside the planner's search, in seconds."""
        begin = time.perf_counter()
        request = self._controller.request(self, self._episodes, self._episodes.active)
        request.cost.imagine(request.start()[:, : self._controller.n_taken_actions])
        self.observer.wait()
        return time.perf_counter() - begin
