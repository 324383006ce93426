"""Teacher-forcing windows whose place among those of all processes is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.latent import cat_latents
from models.world_model import Windows
from utils import distributed


@dataclass(frozen=True)
class NumberedWindows(Windows):
    """Windows and their place in a batch that several processes share.

    Attributes:
        numbers: (W,) of each window among the ``total`` of all processes.
        total: Windows of all processes.
    """

    numbers: Tensor
    total: int

    @classmethod
    def of(cls, windows: Windows, share: distributed.Share | None = None) -> NumberedWindows:
        """Number the windows of a share of a batch by sample, then by time.

        Args:
            windows: Those that are numbered already stay as they are.
            share: Where the samples lie in the batch of all processes; None: they are all there are.
        """
        if isinstance(windows, cls):
            return windows
        first, total = 0, len(windows)
        if share is not None:
            each = len(windows) // share.count
            first, total = share.first * each, share.total * each
        return cls(windows.source, windows.actions, windows.target, torch.arange(len(windows)) + first, total)

    def followed_by(self, others: NumberedWindows) -> NumberedWindows:
        """Join both, the others numbered after all of these."""
        return NumberedWindows(
            cat_latents([self.source, others.source], 0),
            torch.cat([self.actions, others.actions]),
            cat_latents([self.target, others.target], 0),
            torch.cat([self.numbers, self.total + others.numbers]),
            self.total + others.total,
        )
