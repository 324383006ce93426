"""Means over episodes with their intervals, as a diagnosis writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from utils.statistics import mean_interval


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval; None where there is no number, or only one for the interval."""

    mean: float | None
    low: float | None
    high: float | None


def means(values: Tensor) -> Mean:
    """Average ``values`` (n,), of which those that are not finite are left out."""
    finite = values[values.isfinite()].double().tolist()
    return Mean(*map(known, mean_interval(finite))) if finite else Mean(None, None, None)


def known(value: float) -> float | None:
    """A number that JSON can hold; None in the place of others."""
    return float(value) if math.isfinite(value) else None
