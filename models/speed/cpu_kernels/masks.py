"""Dropout of our kernels: masks that are a function of a seed, so that the backward computes them again."""

from __future__ import annotations

import torch
from torch import Tensor

from models.speed.cpu_kernels.build import load

WHOLE = 1 << 32
Mask = tuple[int, int]
"""The seed, and 2^32 times the probability; with 0 nothing is dropped."""


def drawn(p: float) -> Mask:
    """Draw a seed from torch's global generator, if anything is dropped with probability ``p``, rounded to 2^-32."""
    limit = min(round(p * WHOLE), WHOLE - 1)
    return (int(torch.empty((), dtype=torch.int64).random_()), limit) if limit else (0, 0)


def entries(mask: Mask, rows: int, columns: int) -> Tensor:
    """All of a mask (rows, columns): zeros, and 1 / (1 - p)."""
    found = torch.empty(rows, columns)
    load().mask(*mask, rows, columns, found.data_ptr())
    return found
