"""Episode layouts of a batch as one-episode simulators take them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from envs.base import EpisodeLayouts
from envs.factors import usual_values
from envs.simulator import EpisodeLayout, Simulator


def default_layouts(simulator: Simulator | type[Simulator], num_episodes: int) -> dict[str, Tensor]:
    """The simulator's default, ``num_episodes`` times: name -> (B, ...)."""
    default = {key: np.asarray(value) for key, value in simulator.default_layout().items()}
    return {key: torch.from_numpy(np.repeat(value[None], num_episodes, 0)) for key, value in default.items()}


def split_layouts(
    simulator: Simulator | type[Simulator], layouts: EpisodeLayouts | None, num_episodes: int
) -> list[EpisodeLayout]:
    """One layout per episode, filled up with the defaults; new arrays, which the simulators may keep.

    Keys that only factors of variation draw are there only if they are given.

    Raises:
        ValueError: If a key is unknown to the simulator or its values are not (B, ...) with the default's shape; the
            last axis may be missing if its length is 1.
    """
    columns = default_layouts(simulator, num_episodes)
    known = {**usual_values(simulator.factors), **simulator.default_layout()}
    if unknown := sorted(set(layouts or {}) - set(known)):
        raise ValueError(f"env {simulator.name}: unknown layout keys {unknown}, known are {sorted(known)}")
    for key, values in (layouts or {}).items():
        shape = torch.Size((num_episodes, *np.shape(known[key])))
        if values.shape != shape and (*values.shape, 1) != shape:
            found = tuple(values.shape)
            raise ValueError(f"env {simulator.name}: layout {key} must be {tuple(shape)}, got {found}")
        columns[key] = values.detach().cpu().reshape(shape)
    arrays = {key: values.numpy().copy() for key, values in columns.items()}
    return [{key: array[row, ...] for key, array in arrays.items()} for row in range(num_episodes)]
