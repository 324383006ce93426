"""Episodes in an HDF5 file: flat columns as stable-worldmodel writes them, or a group for each as robomimic does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets.files import dataset_root
from datasets.formats.columns import ColumnTrajectories
from datasets.formats.hdf5_rows import FlatRows, GroupRows
from datasets.formats.rows import Rows


class Hdf5Trajectories(ColumnTrajectories):
    """Flat columns with the rows of all episodes, and where each begins: ``ep_offset`` and ``ep_len`` (n,).

    Row t holds frame t and state t, both before action t. stable-worldmodel records the frame after each action, and
    moves the action before the first frame to the last row.
    """

    last_is_foreign = True

    def __init__(self, name: str, lengths: str = "ep_len", offsets: str = "ep_offset", **options: Any) -> None:
        """Read a file.

        Args:
            name: Of the environment.
            lengths: Column of the episodes' lengths.
            offsets: Column of their first rows.
            **options: See the base class.
        """
        self._index = (lengths, offsets)
        super().__init__(name, **options)

    @classmethod
    def usual_place(cls, env: str) -> Path:
        """``$DATASET_DIR/<env>.h5``."""
        return dataset_root() / f"{env}.h5"

    def open_rows(self, path: Path) -> Rows:
        """See the base class."""
        return FlatRows(path, *self._index)


class RobomimicTrajectories(ColumnTrajectories):
    """A group ``data/demo_<i>`` for each episode, with datasets ``actions``, ``states`` and ``obs/<name>``.

    Row t holds frame t and state t, both before action t. Lists of episodes in ``mask`` are the split.
    """

    usual_state = ("states",)
    usual_action = ("actions",)
    usual_proprio = ("obs/proprio",)

    def __init__(
        self, name: str, train_mask: str | None = "train", val_mask: str | None = "valid", **options: Any
    ) -> None:
        """Read a file.

        Args:
            name: Of the environment.
            train_mask: List of episodes below ``mask`` that train, where there is one; null: ``split_ratio`` decides.
            val_mask: List of those that validate.
            **options: See the base class.
        """
        self._masks = (train_mask, val_mask)
        super().__init__(name, **options)

    @classmethod
    def usual_place(cls, env: str) -> Path:
        """``$DATASET_DIR/<env>.hdf5``."""
        return dataset_root() / f"{env}.hdf5"

    def open_rows(self, path: Path) -> Rows:
        """See the base class."""
        return GroupRows(path, *self._masks)
