"""The contract of every writer of collected data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from datasets.episode_store import EpisodeStore
from utils.tensor_files import write_torch


@dataclass(frozen=True)
class Recording:
    """A record of B episodes of K steps.

    Attributes:
        states: (B, K + 1, S), the start first.
        proprio: (B, K + 1, E) float32, raw.
        actions: (B, K, env_action_dim) float32, raw.
        layouts: Name -> (B, ...).
        frames: (B, K + 1, 3, H, W) uint8 or float32, 0..255, or None; black where an episode is over.
        lengths: (B,) int64, raw actions of each that belong to the data.
    """

    states: Tensor
    proprio: Tensor
    actions: Tensor
    layouts: Mapping[str, Tensor]
    frames: Tensor | None
    lengths: Tensor


class Writer(ABC):
    """Writes recorded episodes: one file of images each, and tables of everything else.

    Attributes:
        folder: Of the data set, below the folder of all data sets; "" is the environment's name.
        default_trajectories: Number of trajectories where none is asked for; a released data set's own.
        default_steps: Raw steps of a trajectory where none are asked for; of the longest, where they differ.
        subsets: Subfolders of the data set, each with its default number of trajectories; {} where there are none.
        image_types: How images may be stored; the first is the default.
        frames_after_last: Images of a trajectory beyond one for each of its raw actions.
    """

    folder: ClassVar[str] = ""
    default_trajectories: ClassVar[int] = 1000
    default_steps: ClassVar[int] = 100
    subsets: ClassVar[Mapping[str, int]] = {}
    image_types: ClassVar[tuple[str, ...]]
    frames_after_last: ClassVar[int] = 0

    @abstractmethod
    def store(self, image_type: str) -> EpisodeStore:
        """Make what writes the images of an episode, for one of ``image_types``."""

    @abstractmethod
    def tables(self, recording: Recording) -> dict[str, Tensor]:
        """The rows (B, ...) of each table; ``states`` among them."""

    def write_table(self, folder: Path, name: str, table: Tensor) -> None:
        """Write a whole table, as ``<name>.pth``."""
        write_torch(folder / f"{name}.pth", table)
