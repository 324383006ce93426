"""The arithmetic that the episodes of an evaluation took, by the formulas of ``models/flops.py``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.flops import ModelFlops
from planning.episodes import Episodes
from planning.history import Iteration
from planning.mpc import MPCController
from planning.planners.plan import TERA
from planning.request import flops_of_rollout
from planning.task import PlanningTask


@dataclass(frozen=True)
class EpisodeTflop:
    """10^12 floating-point operations of each of B episodes: (B,) float64.

    Attributes:
        encoder: Frames encoded: start, goal, those seen after a plan was executed, and those that a simulator showed
            in the place of the model.
        forward: Rollouts imagined, proposals, and predictions that a model learns from while planning.
        backward: What the gradients of rollouts take beside that, and that learning.
    """

    encoder: Tensor
    forward: Tensor
    backward: Tensor

    @property
    def total(self) -> Tensor:
        """Encoder, forward and backward together."""
        return self.encoder + self.forward + self.backward

    @classmethod
    def of(cls, task: PlanningTask, controller: MPCController, episodes: Episodes) -> EpisodeTflop:
        """Count what planning for finished episodes took; what was only computed to measure them is left out."""
        flops, num = task.observer.flops, len(task.problem)
        found = torch.zeros(3, num, dtype=torch.float64)
        found[0] = 2 * flops.encoder  # start and goal
        blocks = controller.executed(episodes.iteration)
        for number, entry in enumerate(episodes.history):
            rows = entry["rows"]
            found[:, rows] += _plans(task, controller, entry, number, blocks[number])
            new = blocks[number + 1] - blocks[number]
            encoded = new if controller.adaptation is not None else min(new, flops.history)
            found[0, rows] += encoded * flops.encoder
            if controller.adaptation is not None:
                goes_on = rows[~_solved_by(episodes, rows, number + 1)]
                found[1:, goes_on] += controller.adaptation.steps * _learning(flops, blocks[number], new)[:, None]
        return cls(*found / TERA)


def _plans(task: PlanningTask, controller: MPCController, entry: Iteration, number: int, executed: int) -> Tensor:
    """What the plans (b) of iteration ``number`` took: encoder, forward and backward (3, b)."""
    planner, flops, horizon = controller.planner, task.observer.flops, controller.horizon(number, executed)
    evaluations, gradients = entry["evaluations"].double(), entry["gradients"].double()
    proposals = torch.full_like(evaluations, flops.proposal if planner.sample_type == "proposal" else 0.0)
    if task.rollout_env is not None:
        seen = task.objective.at(executed, planner.horizon, controller.n_taken_actions).frames_seen(horizon)
        return torch.stack([evaluations * seen * flops.encoder, proposals, torch.zeros_like(evaluations)])
    each = flops_of_rollout(flops, planner, horizon, min(flops.history, executed + 1))
    return torch.stack([torch.zeros_like(evaluations), evaluations * each.plain + proposals, gradients * each.gradient])


def _learning(flops: ModelFlops, executed: int, new: int) -> Tensor:
    """Forward and backward (2,) of one step of ``planner.adapt`` on ``new`` frames."""
    frames = [min(flops.history, executed + 1 + each) for each in range(new)]
    forward = sum(flops.predict(count) for count in frames)
    whole = sum(flops.predict(count, "weights") for count in frames)
    return torch.tensor([forward, whole - forward], dtype=torch.float64)


def _solved_by(episodes: Episodes, rows: Tensor, iteration: int) -> Tensor:
    """Whether episodes ``rows`` (b,) are solved after so many iterations."""
    at = episodes.solved_at[rows]
    return (at > 0) & (at <= iteration)
