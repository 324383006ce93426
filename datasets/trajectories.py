"""The raw side of every data set: recorded trajectories, before any window or z-score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from datasets.files import dataset_root
from datasets.units.normalizer import Normalizer
from datasets.units.quantiles import quantile_table
from datasets.writer import Writer


class Trajectories(ABC):
    """Recorded episodes. Row t of a trajectory: frame t and state t, both before action t.

    Rows beyond a trajectory's length are padding and are never read.

    Attributes:
        writer: What writes such data, if they can be collected (``python -m datasets.collect``).
        start_method: How processes that read frames must be started, see ``multiprocessing``; None: any way.
        name: Of the environment the data come from, as in ``env=<name>``.
        data_path: Folder of their files.
        frame_size: Side of the square frames, pixels.
        images: Which images they are, where states and actions do not tell.
        lengths: (n,) int64, the number of usable raw actions of each trajectory.
        states: For each trajectory, raw states (at least its length, S).
        actions: For each trajectory, raw actions (at least its length, env_action_dim).
        normalizer: What maps this data set to z-scores (the identity where normalisation was switched off).
    """

    writer: ClassVar[type[Writer] | None] = None
    start_method: ClassVar[str | None] = None
    name: str
    data_path: Path
    frame_size: int
    images: str = ""
    lengths: Tensor
    states: Sequence[Tensor] | Tensor
    actions: Sequence[Tensor] | Tensor
    normalizer: Normalizer

    @classmethod
    def usual_place(cls, env: str) -> Path:
        """The folder of the data of an environment with this name, below ``$DATASET_DIR``.

        Raises:
            DatasetError: If ``DATASET_DIR`` is unset or does not name a directory.
        """
        return dataset_root() / ((cls.writer and cls.writer.folder) or env)

    def __len__(self) -> int:
        return len(self.lengths)

    def action_quantiles(self) -> Tensor:
        """Raw actions (101, env_action_dim) at the quantiles 0, 0.01, ... 1: the first are the lowest."""
        used = [rows[:length] for rows, length in zip(self.actions, self.lengths.tolist(), strict=True)]
        return quantile_table(torch.cat(used))

    @property
    def state_dim(self) -> int:
        """Length of a state, S."""
        return self.states[0].shape[-1]

    @property
    def proprio_dim(self) -> int:
        """Length of the proprio values, E."""
        return self.proprio(0).shape[-1]

    @property
    def env_action_dim(self) -> int:
        """Length of one raw action."""
        return self.actions[0].shape[-1]

    @abstractmethod
    def proprio(self, trajectory: int) -> Tensor:
        """Raw proprio values (at least its length, E) of one trajectory."""

    @abstractmethod
    def frames(self, trajectory: int, steps: Sequence[int]) -> Tensor:
        """Read the frames at these raw steps, and no others: (len(steps), 3, H, W), uint8 or float32, 0..255."""

    def fit_frames(self, size: int) -> None:
        """Resize frames to this side from now on, in formats that do.

        Raises:
            ValueError: If the frames have another side and come as they are stored.
        """
        if size != self.frame_size:
            raise ValueError(f"the data set's frames are {self.frame_size} x {self.frame_size}")

    def times(self, trajectory: int) -> Tensor | None:
        """Give the recorded time (at least its length,) of each row, seconds; None where none was recorded."""
        return None

    @abstractmethod
    def layout(self, trajectory: int) -> dict[str, Tensor]:
        """The episode layout: what a simulator must be told to replay it, a door's place say; {} if all are alike."""

    @abstractmethod
    def train_val(self) -> tuple[Tensor, Tensor]:
        """Trajectory numbers (int64) of the training and of the validation part."""


def valid_rows(trajectories: Trajectories) -> tuple[Tensor, Tensor, Tensor]:
    """Concatenate raw actions, states and proprio values of all trajectories, without padding: (rows, ...) each."""
    lengths = trajectories.lengths.tolist()
    return (
        torch.cat([trajectories.actions[i][:length] for i, length in enumerate(lengths)]),
        torch.cat([trajectories.states[i][:length] for i, length in enumerate(lengths)]),
        torch.cat([trajectories.proprio(i)[:length] for i, length in enumerate(lengths)]),
    )


def random_split(num_trajectories: int, ratio: float, seed: int) -> tuple[Tensor, Tensor]:
    """Permute the trajectory numbers under a generator seeded with ``seed``; the first ``ratio`` of them train.

    Raises:
        ValueError: If ``ratio`` is not in (0, 1], or leaves no trajectory to train on.
    """
    num_train = int(ratio * num_trajectories)
    if not 0 < ratio <= 1 or num_train < 1:
        raise ValueError(
            f"split_ratio must be in (0, 1] and leave at least one of the {num_trajectories} trajectories "
            f"(n_rollout) for training, got {ratio}"
        )
    order = torch.randperm(num_trajectories, generator=torch.Generator().manual_seed(seed))
    return order[:num_train], order[num_train:]
