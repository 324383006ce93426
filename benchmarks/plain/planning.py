"""Gradient descent and CEM as an earlier release ran them: the start image is encoded anew for every rollout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.plain.model import PlainModel
from models.latent import Latent
from planning.objectives import GoalDistance


@dataclass(frozen=True)
class PlainProblem:
    """What a plan leads from and to.

    Attributes:
        visual, proprio: (B, 1, 3, S, S), (B, 1, E_in) the present frame.
        goal: (B, 1) latent.
        context: Frames that the predictor sees at most.
    """

    visual: Tensor
    proprio: Tensor
    goal: Latent
    context: int


class PlainDescent:
    """Adam on the actions of all episodes; the graph of every step goes back into the encoder.

    Args:
        model: ``as_shipped`` or ``frozen``.
        actions: (B, T, A) to start from.
        lr: Step size.
    """

    def __init__(self, model: PlainModel, problem: PlainProblem, actions: Tensor, lr: float) -> None:
        self.model, self.problem, self.objective = model, problem, GoalDistance()
        self.actions = actions.detach().clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self.actions], lr=lr)

    def step(self) -> Tensor:
        """One step; returns the cost (B,) before it."""
        problem = self.problem
        self.optimizer.zero_grad()
        imagined = self.model.imagine(problem.visual, problem.proprio, self.actions, problem.context)
        cost = self.objective(imagined, problem.goal)
        cost.sum().backward()  # builds the gradients of all weights that take one, too
        self.optimizer.step()
        return cost.detach()


@torch.no_grad()
def plain_cem_step(
    model: PlainModel, problem: PlainProblem, mean: Tensor, std: Tensor, draws: Tensor, topk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One iteration of CEM, one episode after the other.

    Args:
        mean, std: (B, T, A).
        draws: (B, N, T, A) standard normal.

    Returns:
        The new mean and standard deviation (B, T, A), and the costs (B, N).
    """
    objective = GoalDistance()
    means, stds, all_costs = [], [], []
    for episode in range(len(mean)):
        samples = mean[episode] + std[episode] * draws[episode]
        samples[0] = mean[episode]
        visual, proprio = (
            part[episode : episode + 1].expand(len(samples), *part.shape[1:])
            for part in (problem.visual, problem.proprio)
        )
        costs = objective(model.imagine(visual, proprio, samples, problem.context), problem.goal[episode : episode + 1])
        elites = samples[costs.topk(topk, largest=False).indices]
        means.append(elites.mean(0))
        stds.append(elites.std(0))
        all_costs.append(costs)
    return torch.stack(means), torch.stack(stds), torch.stack(all_costs)
