"""Dropout whose random numbers do not cost more than the arithmetic around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LANES = 4  # 16-bit numbers in one 64-bit draw
LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """``nn.Dropout`` that draws 16 random bits an entry on a CPU; elsewhere, and with ``fast = False``, torch's own.

    torch's CPU kernel takes seven times as long, which was a third of a training step at full size. The probability is
    rounded to 1/65536, and what is kept is scaled by the rounded one, so that the mean is exact. Masks come from
    torch's global generator, like those of ``nn.Dropout``, but are others.

    Attributes:
        fast: whether ``forward`` may leave torch's own kernel.
    """

    fast = True

    def acts(self) -> bool:
        """Whether anything is dropped now."""
        return self.training and self.p > 0

    def is_fast_on(self, values: Tensor) -> bool:
        """Whether ``forward`` draws for ``values`` itself."""
        return self.fast and values.device.type == "cpu" and 0 < round(self.p * LEVELS) < LEVELS

    def forward(self, values: Tensor) -> Tensor:
        """Entries of ``values`` set to zero with probability ``p`` in training, the others scaled by 1 / (1 - p)."""
        if not self.acts() or not self.is_fast_on(values):
            return super().forward(values)
        return values * keep_mask(values, self.p)


@torch.no_grad()
def keep_mask(like: Tensor, p: float) -> Tensor:
    """A mask of the shape and type of ``like``: zeros with probability ``p``, else 1 / (1 - p)."""
    dropped = round(p * LEVELS)
    draws = torch.empty(-(-like.numel() // LANES), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: like.numel()].view(like.shape)
    mask = torch.ge(bits, dropped - LEVELS // 2, out=torch.empty(like.shape, dtype=like.dtype))
    return mask.mul_(LEVELS / (LEVELS - dropped))


def choose_dropout(model: nn.Module, fast: bool) -> None:
    """Let every ``Dropout`` of a model draw its own way, or torch's."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.fast = fast
