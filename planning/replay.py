"""Finished episodes played once more from their starts, for what was not looked at while they ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.base import VectorEnv, simulate
from planning.problem import Problem


@dataclass(frozen=True)
class Replay:
    """The course of B finished episodes over all K raw steps that their evaluation may take.

    Where an evaluation ended before, nothing is done in the steps that were left, so that an episode's course does not
    depend on how long the others took.

    Attributes:
        ends: Raw steps executed after 0, 1, ... iterations, as many as the evaluation may make; K is the last.
        states: (B, K + 1, S) true states.
        actions: (B, K, env_action_dim) raw actions.
        distances: (B, K + 1) float64, distances to the goals as the environment judges them.
        inside: (B, K + 1) bool, inside the success region.
    """

    ends: list[int]
    states: Tensor
    actions: Tensor
    distances: Tensor
    inside: Tensor

    @classmethod
    def of(cls, env: VectorEnv, problem: Problem, played: Tensor, ends: Sequence[int]) -> Replay:
        """Play raw actions ``played`` (B, n, env_action_dim) of episodes, n <= K; the environment's are replaced."""
        left = played.new_zeros(len(problem), max(0, ends[-1] - played.shape[1]), played.shape[2])
        actions = torch.cat([played, left], 1)
        states = simulate(env, problem.seeds, problem.states, actions, problem.layouts).states.cpu()
        goals = problem.goal_states.repeat_interleave(states.shape[1], 0)
        judged = env.success(states.flatten(0, 1), goals)
        shape = states.shape[:2]
        distances = judged.state_dist.cpu().double().view(shape)
        return cls(list(ends), states, actions, distances, judged.success.cpu().view(shape))

    def at(self, steps: Sequence[int]) -> tuple[Tensor, Tensor]:
        """States (B, S) and distances (B,) of each episode at a step of its own."""
        rows, chosen = torch.arange(len(self.states)), torch.tensor(list(steps))
        return self.states[rows, chosen], self.distances[rows, chosen]
