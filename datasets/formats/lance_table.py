"""Episodes in a Lance table, as stable-worldmodel writes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.files import dataset_error, dataset_root
from datasets.formats.arrow_columns import numbers
from datasets.formats.columns import ColumnTrajectories
from datasets.formats.image_bytes import decoded
from datasets.formats.rows import AGAIN, Array, Rows, check_room, library, reading
from utils.nearby import hint

_SUFFIX = ".lance"
_VERSIONS = "_versions"  # folder in every table


class LanceTrajectories(ColumnTrajectories):
    """A table with the rows of all episodes, an index of the episode in each, and images as PNG or JPEG.

    Row t holds frame t and state t, both before action t. stable-worldmodel records the frame after each action, and
    moves the action before the first frame to the last row.
    """

    last_is_foreign = True
    start_method = "spawn"  # a forked process hangs in the library

    def __init__(self, name: str, episode: str = "episode_idx", **options: Any) -> None:
        """Read a table.

        Args:
            name: Of the environment.
            episode: Column of the episodes' numbers.
            **options: See the base class.
        """
        self._episode = episode
        super().__init__(name, **options)

    @classmethod
    def usual_place(cls, env: str) -> Path:
        """``$DATASET_DIR/<env>.lance``."""
        return dataset_root() / f"{env}{_SUFFIX}"

    def open_rows(self, path: Path) -> Rows:
        """See the base class."""
        return LanceRows(path, self._episode)


class LanceRows(Rows):
    """The columns of a table.

    Args:
        path: Folder of the table, whatever its name, or one that holds no other.
        episode: Column of the episodes' numbers.

    Raises:
        DatasetError: If it is no table of episodes.
    """

    def __init__(self, path: Path, episode: str) -> None:
        is_table = path.suffix == _SUFFIX or (path / _VERSIONS).is_dir()
        inside = [path] if is_table else sorted(path.glob(f"*{_SUFFIX}"))
        if len(inside) != 1 or not inside[0].is_dir():
            found = hint(path, lambda place: next((entry.name for entry in place.glob(f"*{_SUFFIX}")), None))
            remedy = "Correct env.dataset.data_path, or fetch the data (docs/data.md)."
            raise dataset_error(path, f"a folder *{_SUFFIX}", found, remedy)
        self.path = inside[0]
        self._opened: tuple[int, Any] | None = None
        arrow = library("pyarrow", "pyarrow").types
        with reading(self.path):
            fields = {field.name: field.type for field in self._table().schema}
        self.image_names = [
            name for name, kind in fields.items() if arrow.is_binary(kind) or arrow.is_large_binary(kind)
        ]
        self._widths = {name: kind.list_size if arrow.is_fixed_size_list(kind) else 1 for name, kind in fields.items()}
        self.names = [name for name, kind in fields.items() if _is_number(arrow, kind)]
        if episode not in self.names:
            known = ", ".join(self.names) or "none"
            remedy = "Set env.dataset.episode."
            raise dataset_error(self.path, f"a column of numbers {episode}", known, remedy)
        indices = self.table(episode).reshape(-1)
        starts = np.flatnonzero(np.diff(indices, prepend=indices[:1] - 1))
        if len(np.unique(indices[starts])) != len(starts) or not len(starts):
            raise dataset_error(f"{self.path}, {episode}", "the rows of each episode together", "some apart", AGAIN)
        self.lengths = np.diff(starts, append=len(indices)).astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def table(self, name: str) -> Array:
        """See the base class."""
        with reading(f"{self.path}, {name}"):
            table = self._table()
            shape = (table.count_rows(), self._widths[name])
            check_room(f"{self.path}, {name}", shape, np.float64, sum(file.stat().st_size for file in self._files()))
            return numbers(table.to_table(columns=[name]).column(0), shape)

    def image_size(self, name: str) -> tuple[int, int]:
        """See the base class."""
        height, width = self.frames(name, 0, [0]).shape[2:]
        return height, width

    def frames(self, name: str, episode: int, steps: Sequence[int]) -> Tensor:
        """See the base class."""
        first = int(self.lengths[:episode].sum())
        with reading(f"{self.path}, {name}"):
            found = self._table().take([first + step for step in steps], columns=[name]).column(0)
            return torch.stack([decoded(image.as_py()) for image in found])

    def _files(self) -> list[Path]:
        return [file for file in self.path.rglob("*") if file.is_file()]

    def _table(self) -> Any:
        """Open the table, once in each process."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), library("lance", "pylance").dataset(str(self.path))
        return self._opened[1]


def _is_number(arrow: Any, kind: Any) -> bool:
    inner = kind.value_type if arrow.is_fixed_size_list(kind) else kind
    return bool(arrow.is_integer(inner) or arrow.is_floating(inner) or arrow.is_boolean(inner))
