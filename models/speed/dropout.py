"""Dropout whose random numbers do not cost more than the arithmetic around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LANES = 4  # 16-bit numbers in one 64-bit draw
LEVELS = 1 << 16


class FastDropout(nn.Dropout):
    """``nn.Dropout`` that draws 16 random bits an entry on a CPU.

    torch's CPU kernel takes seven times as long, which was a third of a training step at full size. The probability is
    rounded to 1/65536, and what is kept is scaled by the rounded one, so that the mean is exact. Masks come from
    torch's global generator, like those of ``nn.Dropout``, but are others.
    """

    def draws(self, values: Tensor) -> bool:
        """Whether ``forward`` draws for ``values`` itself; torch does so elsewhere."""
        return self.training and values.device.type == "cpu" and 0 < round(self.p * LEVELS) < LEVELS

    def forward(self, values: Tensor) -> Tensor:
        """Set entries of ``values`` to zero with probability ``p`` in training, and scale the others by 1 / (1 - p)."""
        if not self.training:
            return values  # without asking torch: in planning, a call takes as long as a small product
        return values * keep_mask(values, self.p) if self.draws(values) else super().forward(values)


@torch.no_grad()
def keep_mask(like: Tensor, p: float) -> Tensor:
    """Draw a mask of the shape and type of ``like``: zeros with probability ``p``, else 1 / (1 - p)."""
    dropped = round(p * LEVELS)
    draws = torch.empty(-(-like.numel() // LANES), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: like.numel()].view(like.shape)
    mask = torch.ge(bits, dropped - LEVELS // 2, out=torch.empty(like.shape, dtype=like.dtype))
    return mask.mul_(LEVELS / (LEVELS - dropped))
