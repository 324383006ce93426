"""The promised speeds and memory, each measured and judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.measure import Pace, Timing


def check_bars(device: torch.device, folder: Path, pace: Pace, own: Sequence[str]) -> list[Timing]:
    """To come."""
    return []
