"""Trajectories with tables in memory, and one tensor file of images per episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from datasets.files import load_tensor
from datasets.formats.episode_files import TensorEpisodes
from datasets.formats.tables import (
    check_collected,
    check_finite,
    checked_lengths,
    chosen_count,
    is_recorded,
    load_layouts,
    load_tables,
)
from datasets.trajectories import Trajectories, random_split
from datasets.units.normalizer import Normalizer
from utils.ranges import Seed, Share, TrajectoryCount

LENGTHS = "seq_lengths.pth"


class TableTrajectories(Trajectories):
    """Tables ``<name>.pth`` (n, T, width), padded to T steps, and images ``obses/episode_{i:03d}.pth``.

    ``seq_lengths.pth`` (n,) says how many rows of each belong to it. An image file has a frame for each of these rows,
    or one more, which is never read. ``layout_<key>.pth`` (n, ...) holds a further key of the layouts, such as what a
    factor of variation drew.

    Attributes:
        widths: Of each table, None if any will do; ``states`` and ``actions`` are among them.
        has_lengths: Whether there is a ``seq_lengths.pth``; else all trajectories have T steps.
        channels_last: Whether the image files hold (F, S, S, 3) instead of (F, 3, S, S).

    Raises:
        DatasetError: If a file is missing, damaged or truncated, or has another shape, non-finite values or impossible
            lengths.
        ValueError: If ``split_ratio`` leaves nothing to train on.

    Deviation: the statistics are those of all trajectories of the files even where ``n_rollout`` takes fewer, so that a
    checkpoint trained on all of them sees the same z-scores in a quick try on some.
    """

    widths: ClassVar[Mapping[str, int | None]]
    has_lengths: ClassVar[bool] = True
    channels_last: ClassVar[bool] = False

    def __init__(
        self,
        data_path: str | Path | None = None,
        n_rollout: TrajectoryCount | None = None,
        normalize_action: bool = True,
        split_ratio: Share = 0.9,
        split_seed: Seed = 42,
    ) -> None:
        """Read the tables, and check that the images are there.

        Args:
            data_path: Folder of the files; None is its usual place below ``$DATASET_DIR``.
            n_rollout: Use only the first so many trajectories; None uses all.
            normalize_action: z-score actions, states and proprio values; false leaves all three raw.
            split_ratio: Part of the trajectories that train.
            split_seed: Of the split; 42 is the released one.
        """
        self.data_path = Path(data_path).expanduser() if data_path else self.usual_place(self.name)
        check_collected(self.data_path, self.name)
        tables = load_tables(self.data_path, self.widths)
        lengths = self._read_lengths(tables["states"])
        check_finite(self.data_path, tables, lengths)
        count = chosen_count(n_rollout, len(lengths), self.data_path)
        recorded = is_recorded(lengths, tables["states"].shape[1])
        parts = (tables["actions"], tables["states"], self._proprio_table(tables))
        if normalize_action:
            self.normalizer = Normalizer.fit(*(part[recorded] for part in parts))
        else:
            self.normalizer = Normalizer.identity(*(part.shape[-1] for part in parts))
        self.actions, self.states, self._proprio = (part[:count] for part in parts)
        self.lengths = lengths[:count]
        layouts = {**self._layout_tables(tables), **load_layouts(self.data_path, len(lengths))}
        self._layouts = {name: table[:count] for name, table in layouts.items()}
        self._split = random_split(count, split_ratio, split_seed)
        self._episodes = TensorEpisodes(self.data_path / "obses", self.lengths, self.channels_last)
        self.frame_size = self._episodes.frame_size

    def proprio(self, trajectory: int) -> Tensor:
        """The proprio values (T, E)."""
        return self._proprio[trajectory]

    def frames(self, trajectory: int, steps: Sequence[int]) -> Tensor:
        """Read the frames at these raw steps, and no others: (len(steps), 3, S, S), uint8 or float32, 0..255."""
        return self._episodes.frames(trajectory, steps)

    def layout(self, trajectory: int) -> dict[str, Tensor]:
        """The episode layout: what the simulator must be told to replay this trajectory."""
        return {name: table[trajectory] for name, table in self._layouts.items()}

    def train_val(self) -> tuple[Tensor, Tensor]:
        """Trajectory numbers of the training and of the validation part, in the order of the permutation."""
        return self._split

    def _proprio_table(self, tables: Mapping[str, Tensor]) -> Tensor:
        """The proprio values (n, T, E); by default the states."""
        return tables["states"]

    def _layout_tables(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Name of each layout -> (n, ...); by default there are none."""
        return {}

    def _read_lengths(self, states: Tensor) -> Tensor:
        if not self.has_lengths:
            return torch.full((len(states),), states.shape[1])
        path = self.data_path / LENGTHS
        return checked_lengths(path, load_tensor(path), states)
