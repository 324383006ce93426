"""Variation of a batch of episodes: what the factors of an environment draw for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from envs.base import EpisodeLayouts
from envs.factors import START, Factors, draw_factors


def vary(
    factors: Factors, seeds: Sequence[int], states: Sequence[Tensor], layouts: EpisodeLayouts, attempt: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw how each episode differs, from its seed alone.

    Args:
        factors: Those that vary.
        seeds: One per episode.
        states: (B, S) each, that must stay possible, the starts first.
        layouts: Name -> (B, ...), of the episodes as they are.
        attempt: Number of the draw; another one draws anew.

    Returns:
        Starts (B, S) and layouts.
    """
    rows = np.stack([each.detach().cpu().double().numpy() for each in states], 1)
    columns = {name: values.detach().cpu().numpy() for name, values in layouts.items()}
    drawn = [
        draw_factors(factors, seed, rows[row], {name: values[row] for name, values in columns.items()}, attempt)
        for row, seed in enumerate(seeds)
    ]
    found = {name: torch.from_numpy(np.stack([each[name] for each in drawn])) for name in (drawn[0] if drawn else ())}
    starts = found.pop(START, states[0])
    return starts.to(states[0]), {**layouts, **found}
