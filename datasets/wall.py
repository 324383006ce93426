"""The Wall data set as DINO-WM released it: ``wall_single/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from datasets.collecting.episode_files import TensorEpisodes
from datasets.files import dataset_root
from datasets.tables import check_collected, check_finite, chosen_count, load_tables
from datasets.trajectories import Trajectories, random_split
from datasets.units.normalizer import Normalizer

FOLDER = "wall_single"
_TABLES = {"states": 2, "actions": 2, "door_locations": 1, "wall_locations": 1}


class WallTrajectories(Trajectories):
    """Trajectories of one length T with tables in memory and one image file per episode.

    ``states.pth``, ``actions.pth`` (n, T, 2), ``door_locations.pth``, ``wall_locations.pth`` (n, T, 1), and
    ``obses/episode_{i:03d}.pth`` (T + 1, 3, S, S), 0..255, whose last frame is never read. A state is the dot's x, y in
    pixels of a 65 x 65 grid; the proprio values are the state.

    Args:
        data_path: folder of the files; None is ``$DATASET_DIR/wall_single``.
        n_rollout: use only the first so many trajectories; None uses all.
        normalize_action: z-score actions, states and proprio values; false leaves all three raw.
        split_ratio: part of the trajectories that train.
        split_seed: of the split; 42 is the released one.

    Raises:
        DatasetError: If a file is missing, damaged or truncated, or has another shape or non-finite values.
        ValueError: If ``split_ratio`` leaves nothing to train on.

    Deviation: the statistics are those of all trajectories of the files even where ``n_rollout`` takes fewer, so that a
    checkpoint trained on all of them sees the same z-scores in a quick try on some.
    """

    name = "wall"

    def __init__(
        self,
        data_path: str | Path | None = None,
        n_rollout: int | None = None,
        normalize_action: bool = True,
        split_ratio: float = 0.9,
        split_seed: int = 42,
    ) -> None:
        self.data_path = Path(data_path).expanduser() if data_path else dataset_root() / FOLDER
        check_collected(self.data_path, self.name, "the Wall data")
        tables = load_tables(self.data_path, _TABLES)
        available, num_steps = tables["states"].shape[:2]
        check_finite(self.data_path, tables, torch.full((available,), num_steps))
        count = chosen_count(n_rollout, available, self.data_path)
        self.normalizer = _fit(tables) if normalize_action else Normalizer.identity(2, 2, 2)
        self.states = tables["states"][:count]
        self.actions = tables["actions"][:count]
        self.lengths = torch.full((count,), num_steps)
        self._layout_tables = {
            f"fix_{name}_location": tables[f"{name}_locations"][:count, 0].float() for name in ("door", "wall")
        }
        self._split = random_split(count, split_ratio, split_seed)
        self._episodes = TensorEpisodes(self.data_path / "obses", self.lengths)
        self.frame_size = self._episodes.frame_size

    def proprio(self, trajectory: int) -> Tensor:
        """The states (T, 2): a dot senses where it is."""
        return self.states[trajectory]

    def frames(self, trajectory: int, steps: Sequence[int]) -> Tensor:
        """Read the frames at these raw steps, and no others: (len(steps), 3, S, S), uint8 or float32, 0..255."""
        return self._episodes.frames(trajectory, steps)

    def layout(self, trajectory: int) -> dict[str, Tensor]:
        """The door's y and the wall's x, pixels, (1,) each."""
        return {name: table[trajectory] for name, table in self._layout_tables.items()}

    def train_val(self) -> tuple[Tensor, Tensor]:
        """Trajectory numbers of the training and of the validation part, in the order of the permutation."""
        return self._split


def _fit(tables: dict[str, Tensor]) -> Normalizer:
    states = tables["states"].flatten(0, 1)
    return Normalizer.fit(tables["actions"].flatten(0, 1), states, states)
