"""Planning by gradient descent on the actions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from planning.planners.base import SAMPLE_TYPES, Planner
from planning.planners.noise import EpisodeNoise
from planning.planners.search import Search, no_nan
from utils.ranges import Count, NonNegative, Positive, Small


def _on_gpu(tensors: Sequence[Tensor]) -> bool:
    """Where an optimiser has to keep its count of steps on the device, or each step would wait for it."""
    return tensors[0].is_cuda


OPTIMIZERS: dict[str, Callable[[Sequence[Tensor], float], torch.optim.Optimizer]] = {
    "sgd": lambda actions, lr: torch.optim.SGD(actions, lr=lr),
    "momentum": lambda actions, lr: torch.optim.SGD(actions, lr=lr, momentum=0.9),
    "adam": lambda actions, lr: torch.optim.Adam(actions, lr=lr, capturable=_on_gpu(actions)),
    "adamw": lambda actions, lr: torch.optim.AdamW(actions, lr=lr, capturable=_on_gpu(actions)),
}


class Descent:
    """Gradient steps on many action sequences at once; GD and the hybrids share it.

    Args:
        lr: Step size in z-scored action units, > 0.
        action_noise: Standard deviation of the normal noise added after every step, >= 0.
        optimizer_type: "sgd", "momentum" (0.9), "adam" or "adamw".

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    def __init__(self, lr: float, action_noise: float, optimizer_type: str) -> None:
        if not 0 < lr < math.inf or not 0 <= action_noise < math.inf:
            raise ValueError(f"planner.lr must be > 0 and planner.action_noise >= 0, got {lr} and {action_noise}")
        if optimizer_type not in OPTIMIZERS:
            raise ValueError(f"planner.optimizer_type must be one of {', '.join(OPTIMIZERS)}, got {optimizer_type!r}")
        self.lr, self.action_noise, self.optimizer_type = lr, action_noise, optimizer_type
        # a process's first optimiser imports for seconds: not on the clock of the first plan
        OPTIMIZERS[optimizer_type]([torch.zeros(1, requires_grad=True)], lr)

    def run(
        self,
        search: Search,
        start: Tensor,
        noise: EpisodeNoise,
        steps: Iterable[int],
        most: int,
        traced: Callable[[Tensor], Tensor] = lambda values: no_nan(values).amin(1),
    ) -> Tensor:
        """Take ``steps`` from ``start`` (B, N, T, A), each sequence on its own; returns where they lead.

        Args:
            search: Evaluates candidates.
            start: The sequences.
            noise: One stream per problem.
            steps: Their numbers.
            most: Steps at most.
            traced: Which cost (B,) goes into the trace, of those (B, N) before a step.
        """
        actions = start.detach().clone().requires_grad_()
        optimizer = OPTIMIZERS[self.optimizer_type]([actions], self.lr)
        values, shift = start.new_empty(start.shape[:2]), torch.zeros_like(start)

        def advance() -> None:  # in place throughout: it may be captured
            found, actions.grad = search.differentiate(actions)
            values.copy_(found)
            optimizer.step()
            with torch.no_grad():
                actions.copy_(search.clip(actions + shift if self.action_noise else actions))

        step = search.captured(advance, most)
        shifts = noise.ahead(most, *start.shape[1:]) if self.action_noise else None
        for _ in steps:
            if shifts is not None:
                torch.mul(next(shifts), self.action_noise, out=shift)
            step()
            search.count_gradients(actions)
            if step.replays:
                search.show_progress(actions)
            search.record(traced(values).clone())
        return actions.detach()


class MultiStartPlanner(Planner):
    """Base of planners that descend from several initial sequences per episode; a step takes a rollout of each.

    Arguments not listed here are those of ``Planner``.

    Args:
        sample_type: Initial actions, see ``Planner``.
        num_starts: Initial sequences per episode, >= 1. The first is that of ``sample_type`` or the warm start, the
            next are what else the model proposes, the others are standard normal; the best of all is kept.
        adds_proposal: In a closed loop with ``sample_type`` "proposal", let the second start be a new proposal; else
            it only completes the rest of the last plan.
    """

    differentiates = True

    def __init__(
        self,
        horizon: int,
        opt_steps: int,
        sample_type: str,
        num_starts: int,
        adds_proposal: bool = False,
        **common: Any,
    ) -> None:
        if num_starts < 1:
            raise ValueError(f"planner.num_starts must be at least 1, got {num_starts}")
        sample_type = "proposal" if sample_type == "initnet" else sample_type  # its former name
        if sample_type not in SAMPLE_TYPES:
            raise ValueError(f"planner.sample_type must be one of {', '.join(SAMPLE_TYPES)}, got {sample_type!r}")
        if adds_proposal and (sample_type != "proposal" or num_starts == 1):
            raise ValueError(
                "planner.adds_proposal=true is a further start, from a proposal: it needs planner.num_starts of at "
                "least 2 and planner.sample_type=proposal"
            )
        self.sample_type, self.num_starts, self.adds_proposal = sample_type, num_starts, adds_proposal
        self.step_evaluations, self.shortest = num_starts, 2 * num_starts
        super().__init__(horizon, opt_steps, **common)

    def _starts(self, search: Search, start: Tensor, noise: EpisodeNoise) -> Tensor:
        """Initial sequences (B, N, T, A), of which ``start`` (B, T, A) is the first."""
        starts, proposed = start[:, None], search.space.alternatives
        if self.num_starts > 1 and proposed is not None:
            starts = torch.cat([starts, search.clip(proposed[:, : self.num_starts - 1, : start.shape[1]])], 1)
        if not (missing := self.num_starts - starts.shape[1]):
            return starts
        return torch.cat([starts, search.clip(noise.randn(missing, *start.shape[1:]))], 1)


class GDPlanner(MultiStartPlanner):
    """Gradient descent through the world model, all episodes and starts in one batch.

    Its arguments are those of ``MultiStartPlanner`` and ``Descent``.

    Source: Parthasarathy et al., arXiv 2512.09929, section 3; open loop 300 steps at lr 0.3, MPC 100 at 0.2.
    """

    def __init__(
        self,
        horizon: Small = 5,
        opt_steps: Count = 300,
        lr: Positive = 0.3,
        action_noise: NonNegative = 0.003,
        sample_type: str = "randn",
        optimizer_type: str = "adam",
        num_starts: Count = 1,
        **common: Any,
    ) -> None:
        self.descent = Descent(lr, action_noise, optimizer_type)
        super().__init__(horizon, opt_steps, sample_type, num_starts, **common)

    def _search(self, search: Search, start: Tensor, noise: EpisodeNoise) -> None:
        starts = self._starts(search, start, noise)
        steps = search.steps(self.opt_steps, self.num_starts, self.num_starts)
        search.values(self.descent.run(search, starts, noise, steps, self.opt_steps))
