"""The Wall data set as DINO-WM released it: ``wall_single/``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from datasets.episode_store import EpisodeStore, TensorStore
from datasets.formats.table_trajectories import TableTrajectories
from datasets.writer import Recording, Writer


class WallWriter(Writer):
    """Writes what ``WallTrajectories`` reads."""

    folder = "wall_single"
    default_trajectories = 1920
    default_steps = 50
    image_types = ("float32", "uint8")
    frames_after_last = 1

    def store(self, image_type: str) -> EpisodeStore:
        """One tensor per episode, colours first."""
        return TensorStore(getattr(torch, image_type))

    def tables(self, recording: Recording) -> dict[str, Tensor]:
        """Rows of the four tables, float32; the state after the last action is left out."""
        num_steps = recording.actions.shape[1]
        places = {
            f"{name}_locations": recording.layouts[f"fix_{name}_location"][:, None].expand(-1, num_steps, 1).float()
            for name in ("door", "wall")
        }
        return {"actions": recording.actions, **places, "states": recording.states[:, :num_steps].float()}


class WallTrajectories(TableTrajectories):
    """Trajectories of one length T.

    ``states.pth``, ``actions.pth`` (n, T, 2), ``door_locations.pth``, ``wall_locations.pth`` (n, T, 1), and images
    (T + 1, 3, S, S), 0..255. A state is the dot's x, y in pixels of a 65 x 65 grid; the proprio values are the state.
    The layout of an episode is the door's y and the wall's x, pixels, (1,) each.
    """

    name = "wall"
    writer = WallWriter
    widths = {"states": 2, "actions": 2, "door_locations": 1, "wall_locations": 1}  # noqa: RUF012
    has_lengths = False

    def _layout_tables(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"fix_{name}_location": tables[f"{name}_locations"][:, 0].float() for name in ("door", "wall")}
