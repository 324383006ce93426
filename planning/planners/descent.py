"""Gradient steps on many action sequences at once, in stages between which some are dropped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from planning.planners.noise import EpisodeNoise
from planning.planners.search import Search, no_nan


def _on_gpu(tensors: Sequence[Tensor]) -> bool:
    """Where an optimiser has to keep its count of steps on the device, or each step would wait for it."""
    return tensors[0].is_cuda


OPTIMIZERS: dict[str, Callable[[Sequence[Tensor], float], torch.optim.Optimizer]] = {
    "sgd": lambda actions, lr: torch.optim.SGD(actions, lr=lr),
    "momentum": lambda actions, lr: torch.optim.SGD(actions, lr=lr, momentum=0.9),
    "adam": lambda actions, lr: torch.optim.Adam(actions, lr=lr, capturable=_on_gpu(actions)),
    "adamw": lambda actions, lr: torch.optim.AdamW(actions, lr=lr, capturable=_on_gpu(actions)),
}


LR_SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, most: 1.0,
    "cosine": lambda step, most: 0.5 * (1 + math.cos(math.pi * step / most)),
}
"""What the step size is multiplied by in a step, counted from 0, of so many."""


class Stage(NamedTuple):
    """A part of a search.

    Attributes:
        kept: How many sequences of lowest cost it goes on with.
        length: Steps at most.
        steps: Their numbers.
    """

    kept: int
    length: int
    steps: Iterable[int]


class Descent:
    """Gradient steps on many action sequences at once; GD and the hybrids share it.

    Args:
        lr: Step size in z-scored action units, > 0.
        action_noise: Standard deviation of the normal noise added after every step, >= 0.
        optimizer_type: "sgd", "momentum" (0.9), "adam" or "adamw".
        lr_schedule: "constant", or "cosine": the step size falls to zero over the steps that a search may take at most
            (arXiv 2603.12231), whether or not a budget ends it sooner.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    def __init__(self, lr: float, action_noise: float, optimizer_type: str, lr_schedule: str = "constant") -> None:
        if not 0 < lr < math.inf or not 0 <= action_noise < math.inf:
            raise ValueError(f"planner.lr must be > 0 and planner.action_noise >= 0, got {lr} and {action_noise}")
        if optimizer_type not in OPTIMIZERS:
            raise ValueError(f"planner.optimizer_type must be one of {', '.join(OPTIMIZERS)}, got {optimizer_type!r}")
        if lr_schedule not in LR_SCHEDULES:
            raise ValueError(f"planner.lr_schedule must be one of {', '.join(LR_SCHEDULES)}, got {lr_schedule!r}")
        self.lr, self.action_noise, self.optimizer_type = lr, action_noise, optimizer_type
        self.lr_schedule = lr_schedule
        # a process's first optimiser imports for seconds: not on the clock of the first plan
        OPTIMIZERS[optimizer_type]([torch.zeros(1, requires_grad=True)], lr)

    def run(
        self,
        search: Search,
        start: Tensor,
        noise: EpisodeNoise,
        stages: Iterable[Stage],
        most: int,
        traced: Callable[[Tensor], Tensor] = lambda values: no_nan(values).amin(1),
    ) -> Tensor:
        """Descend from ``start`` (B, N, T, A), each sequence on its own; returns where that leads.

        Args:
            search: Evaluates candidates.
            start: The sequences.
            noise: One stream per problem.
            stages: Parts of the search, the first with all sequences.
            most: Steps at most in all.
            traced: Which cost (B,) goes into the trace, of those (B, N) before a step.
        """
        actions = start.detach().clone().requires_grad_()
        optimizer, done = OPTIMIZERS[self.optimizer_type]([actions], self.lr), 0
        values = start.new_empty(start.shape[:2])
        for stage in stages:
            if stage.kept < actions.shape[1]:
                actions, values = _keep(optimizer, actions, values, stage.kept)
            rates = [LR_SCHEDULES[self.lr_schedule](step, most) for step in range(done, done + stage.length)]
            for values in self._steps(search, optimizer, actions, noise, stage, rates):
                search.record(traced(values).clone())
                done += 1
        return actions.detach()

    def _steps(
        self,
        search: Search,
        optimizer: torch.optim.Optimizer,
        actions: Tensor,
        noise: EpisodeNoise,
        stage: Stage,
        rates: Sequence[float],
    ) -> Iterator[Tensor]:
        """Move ``actions`` in place, each step at its share of ``lr``; yields after each the costs (B, N) before it."""
        values, shift = actions.new_empty(actions.shape[:2]), torch.zeros_like(actions, requires_grad=False)
        share = actions.new_ones(())  # of the optimiser's step, which is proportional to its rate
        scheduled = self.lr_schedule != "constant"

        def advance() -> None:  # in place throughout: it may be captured
            found, actions.grad = search.differentiate(actions)
            values.copy_(found)
            before = actions.detach().clone() if scheduled else None
            optimizer.step()
            with torch.no_grad():
                if before is not None:
                    actions.copy_(torch.lerp(before, actions, share))
                actions.copy_(search.clip(actions + shift if self.action_noise else actions))

        step = search.captured(advance, stage.length)
        shifts = noise.ahead(stage.length, *actions.shape[1:]) if self.action_noise else None
        for number in stage.steps:
            if shifts is not None:
                torch.mul(next(shifts), self.action_noise, out=shift)
            if scheduled:
                share.fill_(rates[number])
            step()
            search.count_gradients(actions)
            if step.replays:
                search.show_progress(actions)
            yield values


def _keep(optimizer: torch.optim.Optimizer, actions: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Drop all but the ``count`` best of ``actions`` (B, N, T, A) by ``values`` (B, N), with what is known of them."""
    best = lowest(values, count)
    episodes = torch.arange(len(actions), device=actions.device)[:, None]
    fewer = actions.detach()[episodes, best].requires_grad_()
    known = optimizer.state.pop(actions, {})
    optimizer.state[fewer] = {
        name: value[episodes, best] if value is not None and value.shape == actions.shape else value
        for name, value in known.items()
    }
    optimizer.param_groups[0]["params"] = [fewer]
    return fewer, values[episodes, best]


def lowest(values: Tensor, count: int) -> Tensor:
    """Places (B, count) of the lowest ``values`` (B, N), in ascending order of place."""
    return no_nan(values).topk(count, 1, largest=False).indices.sort(1).values
