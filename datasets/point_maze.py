"""The PointMaze data set as DINO-WM released it: ``point_maze/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from datasets.collecting.episode_files import TensorEpisodes
from datasets.files import dataset_root, load_tensor
from datasets.tables import check_collected, check_finite, checked_lengths, chosen_count, is_recorded, load_tables
from datasets.trajectories import Trajectories, random_split
from datasets.units.normalizer import Normalizer

FOLDER = "point_maze"
_TABLES = {"states": 4, "actions": 2}


class PointMazeTrajectories(Trajectories):
    """Trajectories with tables in memory, padded to T steps, and one image file per episode.

    ``states.pth`` (n, T, 4), ``actions.pth`` (n, T, 2), ``seq_lengths.pth`` (n,), and ``obses/episode_{i:03d}.pth``
    (length, S, S, 3), 0..255, or one frame more, which is never read. A state is the ball's x, y and velocity; the
    proprio values are the state. A raw action is a force in units of 100 N.

    Args:
        data_path: folder of the files; None is ``$DATASET_DIR/point_maze``.
        n_rollout: use only the first so many trajectories; None uses all.
        normalize_action: z-score actions, states and proprio values; false leaves all three raw.
        split_ratio: part of the trajectories that train.
        split_seed: of the split; 42 is that of DINO-WM.

    Raises:
        DatasetError: If a file is missing, damaged or truncated, or has another shape, non-finite values or impossible
            lengths.
        ValueError: If ``split_ratio`` leaves nothing to train on.

    Deviation: the original drew the split from the global generator, so that planning, under another seed than
    training, took its problems mostly from trajectories that had been trained on; here both use ``split_seed``.

    Deviation: the statistics are those of all trajectories of the files even where ``n_rollout`` takes fewer, so that a
    checkpoint trained on all of them sees the same z-scores in a quick try on some.
    """

    name = "point_maze"

    def __init__(
        self,
        data_path: str | Path | None = None,
        n_rollout: int | None = None,
        normalize_action: bool = True,
        split_ratio: float = 0.9,
        split_seed: int = 42,
    ) -> None:
        self.data_path = Path(data_path).expanduser() if data_path else dataset_root() / FOLDER
        check_collected(self.data_path, self.name, "the PointMaze data")
        tables = load_tables(self.data_path, _TABLES)
        path = self.data_path / "seq_lengths.pth"
        lengths = checked_lengths(path, load_tensor(path), tables["states"])
        check_finite(self.data_path, tables, lengths)
        count = chosen_count(n_rollout, len(lengths), self.data_path)
        self.normalizer = _fit(tables, lengths) if normalize_action else Normalizer.identity(2, 4, 4)
        self.states = tables["states"][:count]
        self.actions = tables["actions"][:count]
        self.lengths = lengths[:count]
        self._split = random_split(count, split_ratio, split_seed)
        self._episodes = TensorEpisodes(self.data_path / "obses", self.lengths, channels_last=True)
        self.frame_size = self._episodes.frame_size

    def proprio(self, trajectory: int) -> Tensor:
        """The states (T, 4)."""
        return self.states[trajectory]

    def frames(self, trajectory: int, steps: Sequence[int]) -> Tensor:
        """Read the frames at these raw steps, and no others: (len(steps), 3, S, S), uint8 or float32, 0..255."""
        return self._episodes.frames(trajectory, steps)

    def layout(self, trajectory: int) -> dict[str, Tensor]:
        """Empty: the maze is the same everywhere."""
        return {}

    def train_val(self) -> tuple[Tensor, Tensor]:
        """Trajectory numbers of the training and of the validation part, in the order of the permutation."""
        return self._split


def _fit(tables: dict[str, Tensor], lengths: Tensor) -> Normalizer:
    recorded = is_recorded(lengths, tables["states"].shape[1])
    states = tables["states"][recorded]
    return Normalizer.fit(tables["actions"][recorded], states, states)
