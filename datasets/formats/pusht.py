"""The PushT data set as DINO-WM released it: ``pusht_noise/``."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from datasets.episode_store import EpisodeStore, VideoStore
from datasets.files import dataset_error, load_plain_pickle, write_whole
from datasets.formats.episode_files import VideoEpisodes
from datasets.formats.tables import (
    check_collected,
    check_finite,
    checked_lengths,
    chosen_count,
    is_recorded,
    load_layouts,
    load_tables,
)
from datasets.trajectories import Trajectories
from datasets.units.normalizer import Normalizer
from datasets.writer import Recording, Writer
from envs.pusht import ACTION_SCALE, PROPRIO
from envs.pusht.shapes import SHAPE_KEY, SHAPES
from utils.ranges import TrajectoryCount

_STATE_MEAN = (236.6155, 264.5674, 255.1307, 266.3721, 1.9584, -2.93032027, 2.54307914)
_STATE_STD = (101.1202, 87.0112, 52.7054, 57.4971, 1.7556, 74.84556075, 74.14009094)
NORMALIZATION = {
    "action_mean": (-0.0087, 0.0068),
    "action_std": (0.2019, 0.2002),
    "state_mean": _STATE_MEAN,
    "state_std": _STATE_STD,
    "proprio_mean": [_STATE_MEAN[i] for i in PROPRIO],
    "proprio_std": [_STATE_STD[i] for i in PROPRIO],
}
"""The statistics that the released checkpoints were trained with, used for all PushT data instead of their own."""
_TABLES = {"states": 5, "velocities": 2, "rel_actions": 2}


class PushTWriter(Writer):
    """Writes one of the two folders that ``PushTTrajectories`` reads."""

    folder = "pusht_noise"
    default_trajectories = 18685
    default_steps = 246
    subsets = {"train": 18685, "val": 21}  # noqa: RUF012
    image_types = ("mp4",)

    def store(self, image_type: str) -> EpisodeStore:
        """One video per episode."""
        return VideoStore()

    def tables(self, recording: Recording) -> dict[str, Tensor]:
        """Rows of the tables, zero after an episode's end; shapes as numbers."""
        states = recording.states[:, :-1].float()
        moves = recording.actions * ACTION_SCALE
        rows = {
            "abs_actions": states[..., :2] + moves,
            "rel_actions": moves,
            "states": states[..., :5],
            "velocities": states[..., 5:],
        }
        played = is_recorded(recording.lengths, moves.shape[1])[..., None]
        whole = {"seq_lengths": recording.lengths, "shapes": recording.layouts[SHAPE_KEY][:, 0]}
        return {name: table * played for name, table in rows.items()} | whole

    def write_table(self, folder: Path, name: str, table: Tensor) -> None:
        """Write lengths and names of shapes as pickled lists, the others as tensors."""
        values: list[Any] = table.tolist()
        if name == "shapes":
            values = [SHAPES[index] for index in values]
        elif name != "seq_lengths":
            return super().write_table(folder, name, table)
        write_whole(folder / f"{name}.pkl", lambda file: file.write(pickle.dumps(values)), "pickle")


class _Part(NamedTuple):
    """One of the two folders; n trajectories."""

    states: Tensor  # (n, T, 7)
    actions: Tensor  # (n, T, 2)
    lengths: Tensor  # (n,)
    shapes: Tensor  # (n, 1)
    layouts: dict[str, Tensor]  # (n, ...), of what varies
    episodes: VideoEpisodes


class PushTTrajectories(Trajectories):
    """Trajectories of unequal lengths, the n of ``train/`` first, then the m of ``val/``, and one video per episode.

    Each of the two folders holds ``states.pth`` (n, T, 5), ``velocities.pth`` and ``rel_actions.pth`` (n, T, 2),
    ``seq_lengths.pkl`` with n lengths, ``shapes.pkl`` with n names of block shapes (absent: all are T), and
    ``obses/episode_{i:03d}.mp4`` with square frames. A state is the agent's x, y, the block's x, y, in pixels of a
    512 x 512 window, the block's angle and the agent's velocity, pixels per second; the proprio values are the agent's
    place and velocity. A raw action is the target relative to the agent, in units of 100 pixels.

    Args:
        data_path: Folder that holds ``train`` and ``val``; None is ``$DATASET_DIR/pusht_noise``.
        n_rollout: Use only the first so many trajectories of each folder (of ``val`` all, if it has fewer); None uses
            all.
        normalize_action: z-score actions, states and proprio values; false leaves all three raw.

    Raises:
        DatasetError: If a file is missing, damaged or empty, or has another shape, non-finite values, impossible
            lengths or unknown block shapes. A damaged video other than the first is found when it is read.

    Deviation: only relative actions are read. The released absolute ones are no actions of the simulated environment,
    nor do the statistics of the released checkpoints fit them.
    """

    name = "pusht"
    writer = PushTWriter

    def __init__(
        self,
        data_path: str | Path | None = None,
        n_rollout: TrajectoryCount | None = None,
        normalize_action: bool = True,
    ) -> None:
        self.data_path = Path(data_path).expanduser() if data_path else self.usual_place(self.name)
        for part in ("train", "val"):
            check_collected(self.data_path, self.name, part)
        train = _load_part(self.data_path / "train", n_rollout)
        val = _load_part(self.data_path / "val", n_rollout, fewer_will_do=True)
        self.states = _joined(train.states, val.states)
        self.actions = _joined(train.actions, val.actions)
        self.lengths = torch.cat((train.lengths, val.lengths))
        self._shapes = torch.cat((train.shapes, val.shapes))
        if train.layouts.keys() != val.layouts.keys():
            found = f"{sorted(train.layouts)} and {sorted(val.layouts)}"
            raise dataset_error(
                self.data_path, "the same layout tables in both parts", found, "Collect both with one vary."
            )
        self._layouts = {key: torch.cat((table, val.layouts[key])) for key, table in train.layouts.items()}
        self.normalizer = Normalizer.from_dict(NORMALIZATION) if normalize_action else Normalizer.identity(2, 7, 4)
        self._episodes = (train.episodes, val.episodes)
        self._num_train = len(train.lengths)
        self.frame_size = train.episodes.frame_size
        if val.episodes.frame_size != self.frame_size:
            expected = f"frames of {self.frame_size} pixels, as {train.episodes.path(0)}"
            remedy = "Collect both parts with one image_size."
            raise dataset_error(val.episodes.path(0), expected, val.episodes.frame_size, remedy)

    def proprio(self, trajectory: int) -> Tensor:
        """The agent's x, y and velocity (T, 4)."""
        return self.states[trajectory][:, list(PROPRIO)]

    def frames(self, trajectory: int, steps: Sequence[int]) -> Tensor:
        """Decode the frames at these raw steps: (len(steps), 3, S, S), uint8."""
        if trajectory < self._num_train:
            return self._episodes[0].frames(trajectory, steps)
        return self._episodes[1].frames(trajectory - self._num_train, steps)

    def layout(self, trajectory: int) -> dict[str, Tensor]:
        """The block's shape, (1,) int64, an index into ``envs.pusht.shapes.SHAPES``, and what varies."""
        return {"shape": self._shapes[trajectory], **{key: table[trajectory] for key, table in self._layouts.items()}}

    def train_val(self) -> tuple[Tensor, Tensor]:
        """Trajectory numbers of the two folders."""
        return torch.arange(self._num_train), torch.arange(self._num_train, len(self))


def _load_part(folder: Path, n_rollout: int | None, fewer_will_do: bool = False) -> _Part:
    tables = load_tables(folder, _TABLES)
    path = folder / "seq_lengths.pkl"
    lengths = checked_lengths(path, load_plain_pickle(path), tables["states"])
    check_finite(folder, tables, lengths)
    available = len(lengths)
    if fewer_will_do and n_rollout is not None:
        n_rollout = min(n_rollout, available)
    count = chosen_count(n_rollout, available, folder)
    return _Part(
        states=torch.cat((tables["states"][:count], tables["velocities"][:count]), -1),
        actions=tables["rel_actions"][:count] / ACTION_SCALE,
        lengths=lengths[:count],
        shapes=_load_shapes(folder / "shapes.pkl", available)[:count, None],
        layouts={key: table[:count] for key, table in load_layouts(folder, available).items()},
        episodes=VideoEpisodes(folder / "obses", lengths[:count]),
    )


def _load_shapes(path: Path, count: int) -> Tensor:
    """Number of each trajectory's block shape, (count,) int64."""
    values = load_plain_pickle(path) if path.exists() else ["T"] * count
    names = [str(name) for name in (values if isinstance(values, list | tuple) else np.atleast_1d(values))]
    if len(names) != count:
        expected = f"{count} shapes, one for each trajectory of the tables"
        raise dataset_error(path, expected, len(names), "Fetch the original file again.")
    if unknown := sorted(set(names) - set(SHAPES)):
        raise dataset_error(path, f"shapes among {list(SHAPES)}", unknown, "Leave out the trajectories with others.")
    return torch.tensor([SHAPES.index(name) for name in names])


def _joined(train: Tensor, val: Tensor) -> Tensor:
    """Concatenate (n, T, width) and (m, T', width), padding the shorter time axis with zeros."""
    longest = max(train.shape[1], val.shape[1])
    return torch.cat([pad(part, (0, 0, 0, longest - part.shape[1])) for part in (train, val)])
