"""Planning by gradient descent on the actions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from planning.planners.base import SAMPLE_TYPES, Planner
from planning.planners.descent import Descent, Stage
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import Work
from planning.planners.search import Search
from utils.ranges import Count, NonNegative, Positive, Small


class MultiStartPlanner(Planner):
    """Base of planners that descend from several initial sequences per episode; a step takes a rollout of each.

    Arguments not listed here are those of ``Planner``.

    Args:
        sample_type: Initial actions, see ``Planner``.
        num_starts: Initial sequences per episode, >= 1. The first is that of ``sample_type`` or the warm start, the
            next are what else the model proposes, the others are standard normal; the best of all is kept.
        adds_proposal: In a closed loop with ``sample_type`` "proposal", let the second start be a new proposal; else
            it only completes the rest of the last plan.
        drop_every: After every so many steps the half of the sequences with the higher cost leaves the batch, until one
            is left, >= 1; None: all are searched to the end.
    """

    differentiates = True

    def __init__(
        self,
        horizon: int,
        opt_steps: int,
        sample_type: str,
        num_starts: int,
        adds_proposal: bool = False,
        drop_every: Count | None = None,
        **common: Any,
    ) -> None:
        for key, value in (("num_starts", num_starts), ("drop_every", drop_every)):
            if value is not None and value < 1:
                raise ValueError(f"planner.{key} must be at least 1, got {value}")
        sample_type = "proposal" if sample_type == "initnet" else sample_type  # its former name
        if sample_type not in SAMPLE_TYPES:
            raise ValueError(f"planner.sample_type must be one of {', '.join(SAMPLE_TYPES)}, got {sample_type!r}")
        if adds_proposal and (sample_type != "proposal" or num_starts == 1):
            raise ValueError(
                "planner.adds_proposal=true is a further start, from a proposal: it needs planner.num_starts of at "
                "least 2 and planner.sample_type=proposal"
            )
        if drop_every is not None and num_starts == 1:
            raise ValueError(
                f"planner.drop_every={drop_every} has no effect on one start: raise planner.num_starts, or leave it out"
            )
        self.sample_type, self.num_starts = sample_type, num_starts
        self.adds_proposal, self.drop_every = adds_proposal, drop_every
        self.step_evaluations, self.shortest, self.shortest_gradients = num_starts, 2 * num_starts, num_starts
        super().__init__(horizon, opt_steps, **common)

    def _starts(self, search: Search, start: Tensor, noise: EpisodeNoise) -> Tensor:
        """Initial sequences (B, N, T, A), of which ``start`` (B, T, A) is the first."""
        starts, proposed = start[:, None], search.space.alternatives
        if self.num_starts > 1 and proposed is not None:
            starts = torch.cat([starts, search.clip(proposed[:, : self.num_starts - 1, : start.shape[1]])], 1)
        if not (missing := self.num_starts - starts.shape[1]):
            return starts
        return torch.cat([starts, search.clip(noise.randn(missing, *start.shape[1:]))], 1)

    def _stages(self, search: Search) -> Iterator[Stage]:
        """The whole search, or its parts between which sequences are dropped."""
        left, kept = self.opt_steps, self.num_starts
        while left:
            length = left if self.drop_every is None or kept == 1 else min(left, self.drop_every)
            yield Stage(kept, length, search.steps(length, Work(kept, kept), Work(kept)))
            left, kept = left - length, -(-kept // 2)


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
        lr_schedule: str = "constant",
        **common: Any,
    ) -> None:
        self.descent = Descent(lr, action_noise, optimizer_type, lr_schedule)
        super().__init__(horizon, opt_steps, sample_type, num_starts, **common)

    def _search(self, search: Search, start: Tensor, noise: EpisodeNoise) -> None:
        starts = self._starts(search, start, noise)
        search.values(self.descent.run(search, starts, noise, self._stages(search), self.opt_steps))
