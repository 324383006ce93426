"""Data of any environment: what ``datasets.collect`` writes for one that has no released data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from datasets.episode_store import EpisodeStore, TensorStore
from datasets.formats.table_trajectories import TableTrajectories
from datasets.formats.tables import LAYOUT_TABLE
from datasets.writer import Recording, Writer


class EpisodeWriter(Writer):
    """Writes what ``EpisodeTrajectories`` reads."""

    image_types = ("uint8", "float32")

    def store(self, image_type: str) -> EpisodeStore:
        """One tensor per episode, colours first."""
        return TensorStore(getattr(torch, image_type))

    def tables(self, recording: Recording) -> dict[str, Tensor]:
        """Rows of the tables; the state after the last action is left out."""
        layouts = {f"{LAYOUT_TABLE}{name}": values for name, values in recording.layouts.items()}
        return {
            "actions": recording.actions,
            "proprio": recording.proprio[:, :-1],
            "seq_lengths": recording.lengths,
            "states": recording.states[:, :-1],
            **layouts,
        }


class EpisodeTrajectories(TableTrajectories):
    """Trajectories of an environment of any sizes.

    ``states.pth`` (n, T, S), ``actions.pth`` (n, T, env_action_dim), ``proprio.pth`` (n, T, E), ``seq_lengths.pth``
    (n,), ``layout_<key>.pth`` (n, ...) for each key of the episodes' layout, and images (length, 3, S, S), 0..255.
    """

    writer = EpisodeWriter
    widths = {"states": None, "actions": None, "proprio": None}  # noqa: RUF012

    def __init__(self, name: str, **options: Any) -> None:
        """Read the data of the environment with this name; the other arguments are those of ``TableTrajectories``."""
        self.name = name
        super().__init__(**options)

    def _proprio_table(self, tables: Mapping[str, Tensor]) -> Tensor:
        return tables["proprio"]
