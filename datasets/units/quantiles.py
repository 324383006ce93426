"""Quantiles of raw actions, as a table that is saved with a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PERCENT = 100


def quantile_table(values: Tensor) -> Tensor:
    """Tabulate the quantiles 0, 0.01, ... 1 of each column of ``values`` (n, D): (101, D)."""
    found = np.quantile(values.double().numpy(), np.linspace(0, 1, PERCENT + 1), axis=0)
    return torch.from_numpy(found).to(values.dtype)


def at_quantiles(table: Tensor, wanted: Sequence[float]) -> Tensor:
    """Look up quantiles, each in [0, 1]; what lies between two of a table's is interpolated.

    Args:
        table: (Q, D) at Q evenly spaced quantiles, from the lowest value to the highest.
        wanted: Which.

    Returns:
        (len(wanted), D).
    """
    rows = []
    for quantile in wanted:
        place = round(quantile * (len(table) - 1), 9)  # so that 0.07 of 101 is row 7
        below = min(int(place), len(table) - 2)
        rows.append(torch.lerp(table[below], table[below + 1], place - below))
    return torch.stack(rows)
