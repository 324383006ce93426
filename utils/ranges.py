"""Types of settings with their ranges, to stand beside the argument that takes them.

Bounds are far beyond what is of use: what exceeds them is a mistake.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Interval, Len

from utils.machine import most_processes

Small = Annotated[int, Interval(ge=1, le=1000)]
"""Horizons, histories, layers, heads."""
SmallOrZero = Annotated[int, Interval(ge=0, le=1000)]
Count = Annotated[int, Interval(ge=1, le=10**6)]
CountOrZero = Annotated[int, Interval(ge=0, le=10**6)]
TrajectoryCount = Annotated[int, Interval(ge=1, le=10**7)]
Period = Annotated[int, Interval(ge=1, le=10**9)]
Dimension = Annotated[int, Interval(ge=1, le=100)]
"""Lengths of states and actions."""
Index = Annotated[int, Interval(ge=0, le=99)]
Processes = Annotated[int, Interval(ge=1, le=most_processes())]
ProcessesOrZero = Annotated[int, Interval(ge=0, le=most_processes())]
Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]

Width = Annotated[int, Interval(ge=1, le=2**16)]
EmbeddingSize = Annotated[int, Interval(ge=1, le=4096)]
Side = Annotated[int, Interval(ge=1, le=4096)]
"""Pixels of an image."""
NormEps = Annotated[float, Interval(gt=0, le=1e-2)]
"""What a LayerNorm adds to the variance."""
DropoutRate = Annotated[float, Interval(ge=0, le=0.99)]

Positive = Annotated[float, Interval(gt=0, le=1e6)]
NonNegative = Annotated[float, Interval(ge=0, le=1e6)]
Limit = Annotated[float, Interval(gt=0, le=1e9)]
Coordinate = Annotated[float, Interval(ge=-1e6, le=1e6)]
Share = Annotated[float, Interval(ge=0, le=1)]
Quantiles = Annotated[list[Share], Len(2, 2)]
"""A lower and an upper one."""
PositiveShare = Annotated[float, Interval(gt=0, le=1)]

Choice = bool | Literal["auto"]
MemoryBudget = Positive | Literal["auto"]
"""GB of activations."""
