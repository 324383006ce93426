"""When the search for a problem's plan ends early: as soon as it has gained too little for too long."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Patience:
    """How long a search goes on without gain.

    Attributes:
        gain: Share of its best cost that a problem has to gain, in [0, 1).
        steps: Within so many steps.
    """

    gain: float
    steps: int


class Stalling:
    """Tells of each of B problems whether its search has stalled, by its own costs only.

    Args:
        patience: How long none may gain.
        cost: (B,) the best cost of each after the first step.

    Attributes:
        going: (b,) numbers of the problems whose search goes on.
        spent: (2, B) evaluations, and how many were differentiated, of the others.
    """

    def __init__(self, patience: Patience, cost: Tensor) -> None:
        self._patience, self._reference = patience, cost.clone()
        self._waited = torch.zeros_like(cost, dtype=torch.long)
        self.going = torch.arange(len(cost), device=cost.device)
        self.spent = torch.zeros(2, len(cost), dtype=torch.long, device=cost.device)

    def notice(self, cost: Tensor, spent: tuple[int, int]) -> None:
        """Let those stop that have stalled.

        Args:
            cost: (B,) the best cost of each after one more step.
            spent: Evaluations of each that went on until now, and how many were differentiated.
        """
        reference = self._reference
        wanted = torch.where(reference.isfinite(), reference - self._patience.gain * reference.abs(), reference)
        gained = cost < wanted
        self._reference = torch.where(gained, cost, reference)
        self._waited = torch.where(gained, 0, self._waited + 1)
        self.spent[:, self.going] = self.spent.new_tensor(spent)[:, None]
        self.going = self.going[self._waited[self.going] < self._patience.steps]
