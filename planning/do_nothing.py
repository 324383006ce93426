"""How much of a success rate is no achievement: episodes that begin solved, and those that doing nothing solves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from envs.base import VectorEnv
from planning.problem import Problem


def begins_solved(env: VectorEnv, problem: Problem) -> Tensor:
    """Whether each episode begins inside its success region: (B,) bool, on the CPU; replaces the env's episodes."""
    starts = env.reset(problem.seeds, problem.states, problem.layouts)  # where they really start: a reset may move them
    return env.success(starts, problem.goal_states).success.cpu()


def solved_by_doing_nothing(env: VectorEnv, problem: Problem, ends: Sequence[int]) -> Tensor:
    """Whether zero raw actions solve each episode, by the rule of MPC: inside the region at the end of an iteration.

    Args:
        env: its episodes are replaced; only simulated, nothing is drawn. problem: the episodes.
        ends: raw steps executed after 0, 1, ... iterations.

    Returns:
        (B,) bool, on the CPU.
    """
    env.reset(problem.seeds, problem.states, problem.layouts)
    solved = torch.zeros(len(problem), dtype=torch.bool)
    for before, after in itertools.pairwise(ends):
        nothing = torch.zeros(len(problem), after - before, env.env_action_dim)
        solved |= env.success(env.step(nothing)[:, -1], problem.goal_states).success.cpu()
        if solved.all():
            break
    return solved
