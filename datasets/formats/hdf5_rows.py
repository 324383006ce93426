"""The columns of HDF5 files, read in place."""

from __future__ import annotations

import contextlib
import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.files import DatasetError, dataset_error
from datasets.formats.rows import (
    AGAIN,
    Array,
    Rows,
    as_frames,
    check_room,
    image_sides,
    is_image,
    lengths_from_ends,
    library,
    reading,
)
from utils.nearby import hint

_SUFFIXES = (".h5", ".hdf5")


class _FileRows(Rows):
    """What lies in one file, opened once in each process.

    Args:
        path: The file, or a folder with only one.

    Raises:
        DatasetError: If there is none, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        files = sorted(file for file in path.glob("*") if file.suffix in _SUFFIXES) if path.is_dir() else [path]
        if len(files) != 1 or not files[0].is_file():
            names = ", ".join(file.name for file in files)
            found = names if len(files) > 1 else hint(path, _holds)
            remedy = "Correct env.dataset.data_path, or fetch the data (docs/data.md)."
            raise dataset_error(path, "an HDF5 file", found, remedy)
        self.path = files[0]
        self._opened: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def image_size(self, name: str) -> tuple[int, int]:
        """See the base class."""
        return image_sides(self._dataset(self._place(name, 0)).shape)

    def frames(self, name: str, episode: int, steps: Sequence[int]) -> Tensor:
        """See the base class."""
        first = self._first_row(episode)
        rows, places = np.unique(np.asarray(steps, np.int64) + first, return_inverse=True)
        place = self._place(name, episode)
        with reading(f"{self.path}, {place}"):
            dataset = self._file()[place]
            images = dataset[rows] if len(rows) else np.zeros((0, *dataset.shape[1:]), dataset.dtype)
        return as_frames(f"{self.path}, {place}", images[places])

    @abstractmethod
    def _place(self, name: str, episode: int) -> str:
        """Name of the dataset in the file that holds a column of an episode."""

    @abstractmethod
    def _first_row(self, episode: int) -> int:
        """Row of that dataset with which the episode begins."""

    def _file(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            h5py = library("h5py", "h5py")
            with contextlib.suppress(DatasetError):  # registers further compressions, where it is installed
                library("hdf5plugin", "hdf5plugin")
            with reading(self.path):
                self._opened = os.getpid(), h5py.File(self.path, "r")
        return self._opened[1]

    def _dataset(self, place: str) -> Any:
        with reading(f"{self.path}, {place}"):
            return self._file()[place]

    def _read(self, place: str) -> Array:
        dataset = self._dataset(place)
        where = f"{self.path}, {place}"
        check_room(where, dataset.shape, dataset.dtype, dataset.id.get_storage_size())
        with reading(where):
            return np.asarray(dataset[...])


class FlatRows(_FileRows):
    """Columns with the rows of all episodes; other arguments as in ``Hdf5Trajectories``."""

    def __init__(self, path: Path, lengths: str, offsets: str) -> None:
        super().__init__(path)
        with reading(self.path):
            found = _datasets(self._file())
        if missing := {lengths, offsets} - found.keys():
            expected, there = f"a dataset {' and '.join(sorted(missing))}", ", ".join(found) or "none"
            remedy = "Name lengths and offsets with env.dataset.lengths and .offsets, or try dataset=robomimic."
            raise dataset_error(self.path, expected, there, remedy)
        counts, offset = self._read(lengths), self._read(offsets)
        self.lengths = lengths_from_ends(f"{self.path}, {lengths}", np.cumsum(counts))
        total = int(self.lengths.sum())
        if offset.shape != counts.shape or (offset != np.cumsum(counts) - counts).any():
            expected = f"the first row of each of {len(counts)} episodes, end to end"
            raise dataset_error(f"{self.path}, {offsets}", expected, f"{offset[:6].tolist()}...", AGAIN)
        for name in [lengths, offsets]:
            del found[name]
        found = {name: kind for name, kind in found.items() if kind[0] != counts.shape}  # not what is of whole episodes
        for name, (shape, _) in found.items():
            if shape[0] != total:
                raise dataset_error(f"{self.path}, {name}", f"{total} rows, the sum of {lengths}", shape[0], AGAIN)
        self.image_names = [name for name, kind in found.items() if is_image(*kind)]
        self.names = [name for name in found if name not in self.image_names]

    def table(self, name: str) -> Array:
        """See the base class."""
        return self._read(name)

    def _place(self, name: str, episode: int) -> str:
        return name

    def _first_row(self, episode: int) -> int:
        return int(self.lengths[:episode].sum())


class GroupRows(_FileRows):
    """A group of datasets for each episode; other arguments as in ``RobomimicTrajectories``."""

    def __init__(self, path: Path, train_mask: str | None, val_mask: str | None) -> None:
        super().__init__(path)
        with reading(self.path):
            group = self._file().get("data")
            self._episodes = sorted(group or (), key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
            kinds = [_datasets(group[name]) for name in self._episodes]
        if not kinds:
            there = ", ".join(self._file()) or "nothing"
            raise dataset_error(self.path, "a group data with one for each episode", there, "Try dataset=hdf5.")
        shared = [name for name in kinds[0] if all(name in kind for kind in kinds) and not name.startswith("next_obs/")]
        self.image_names = [name for name in shared if is_image(*kinds[0][name])]
        self.names = [name for name in shared if name not in self.image_names]
        rows = [{kind[name][0][0] for name in shared} for kind in kinds]
        for episode, counts in zip(self._episodes, rows, strict=True):
            if len(counts) != 1 or 0 in counts:
                expected = "datasets with one row for each step"
                raise dataset_error(f"{self.path}, data/{episode}", expected, f"{sorted(counts)} rows", AGAIN)
        self.lengths = np.array([counts.pop() for counts in rows], np.int64)
        masks = [self._mask(name) for name in (train_mask, val_mask)]
        self._masks = None if None in masks else masks

    def table(self, name: str) -> Array:
        """See the base class."""
        return np.concatenate([self._read(self._place(name, number)) for number in range(len(self.lengths))])

    def split(self, count: int) -> tuple[Tensor, Tensor] | None:
        """See the base class."""
        if self._masks is None:
            return None
        train, val = (torch.tensor([number for number in mask or () if number < count]) for mask in self._masks)
        return (train.long(), val.long()) if len(train) else None

    def _mask(self, name: str | None) -> list[int] | None:
        """Numbers of the episodes that a list below ``mask`` names."""
        with reading(f"{self.path}, mask"):
            if name is None or name not in self._file().get("mask", ()):
                return None
            named = {entry.decode() for entry in self._file()[f"mask/{name}"][...].tolist()}
        return [number for number, episode in enumerate(self._episodes) if episode in named]

    def _place(self, name: str, episode: int) -> str:
        return f"data/{self._episodes[episode]}/{name}"

    def _first_row(self, episode: int) -> int:
        return 0


def _datasets(group: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and type of the datasets of numbers, also of ragged ones, in a group and the groups in it, by name."""
    found: dict[str, tuple[tuple[int, ...], Any]] = {}

    def look(name: str, item: Any) -> None:
        if not getattr(item, "shape", None):
            return
        is_ragged = isinstance((item.dtype.metadata or {}).get("vlen"), np.dtype)  # of texts it is a class
        if item.dtype.kind in "fiub" or is_ragged:
            found[name] = item.shape, item.dtype

    group.visititems(look)
    return found


def _holds(place: Path) -> str | None:
    return next((file.name for file in place.glob("*") if file.suffix in _SUFFIXES), None)
