"""HDF5 files, flat as stable-worldmodel's or in groups as robomimic's."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from datasets.converting.target import Array, Target, bytes_of_columns, dtype_of_frames
from datasets.formats.rows import library
from utils.files import atomic_path

_Shape = tuple[tuple[int, ...], Any]


class _Hdf5Target(Target):
    """A file whose tables have their final size and place from the beginning.

    The rows are filled in beside the library: a process that is killed while the library writes leaves a file that
    cannot be opened.
    """

    image_types = ("raw",)

    def bytes_needed(self) -> int:
        """Nothing is compressed."""
        return sum(self.outline.lengths) * self.outline.frame_bytes + bytes_of_columns(self.outline)

    def begin(self) -> None:
        """Make the file with all tables, which are not filled in yet."""
        if self.place.exists():
            return
        h5py = library("h5py", "h5py")
        with atomic_path(self.place) as temporary, h5py.File(temporary, "w", libver="latest") as file:
            for name, (shape, dtype) in self._tables().items():
                settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                settings.set_layout(h5py.h5d.CONTIGUOUS)
                settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
                links.set_create_intermediate_group(True)
                kind, space = h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple(shape)
                h5py.h5d.create(file.id, name.encode(), kind, space, dcpl=settings, lcpl=links)
            self._describe(h5py, file)

    def write(self, numbers: range) -> None:
        """Fill in the rows."""
        with library("h5py", "h5py").File(self.place, "r") as file:
            places = {
                (name, number): file[name].id.get_offset()
                for number in numbers
                for name in self._names(number).values()
            }
        with self.place.open("r+b") as file:
            for number in numbers:
                values = self._values(number)
                for column, name in self._names(number).items():
                    file.seek(places[name, number] + self._first_row(number) * values[column][0].nbytes)
                    file.write(np.ascontiguousarray(values[column]).tobytes())
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Nothing is left."""

    def _values(self, number: int) -> dict[str, Array]:
        return self.outline.columns(number) | {"image": self.outline.frames(number).movedim(1, -1).numpy()}

    def _kinds(self) -> dict[str, _Shape]:
        """Shape of a row, and type, of each column of an episode."""
        side = self.outline.frame.shape[-1]
        kinds = {name: (rows.shape[1:], rows.dtype) for name, rows in self.outline.columns(0).items()}
        return kinds | {"image": ((side, side, 3), dtype_of_frames(self.outline))}

    @abstractmethod
    def _tables(self) -> Mapping[str, _Shape]:
        """All tables of the file."""

    @abstractmethod
    def _names(self, number: int) -> Mapping[str, str]:
        """Columns of an episode -> the tables that they are part of."""

    @abstractmethod
    def _first_row(self, number: int) -> int:
        """Row of those tables with which an episode begins."""

    @abstractmethod
    def _describe(self, h5py: Any, file: Any) -> None:
        """Write what is known from the beginning."""


class Hdf5Target(_Hdf5Target):
    """``pixels``, ``state``, ``action``, ``proprio``, and where each episode begins."""

    suffix = ".h5"

    def _tables(self) -> dict[str, _Shape]:
        rows, count = sum(self.outline.lengths), len(self.outline.lengths)
        kinds = {self._names(0)[name]: ((rows, *shape), dtype) for name, (shape, dtype) in self._kinds().items()}
        return kinds | {"ep_len": ((count,), np.int32), "ep_offset": ((count,), np.int64)}

    def _names(self, number: int) -> dict[str, str]:
        return {name: "pixels" if name == "image" else name for name in self._kinds()}

    def _first_row(self, number: int) -> int:
        return sum(self.outline.lengths[:number])

    def _describe(self, h5py: Any, file: Any) -> None:
        lengths = np.array(self.outline.lengths)
        file["ep_len"][...], file["ep_offset"][...] = lengths, np.cumsum(lengths) - lengths


class RobomimicTarget(_Hdf5Target):
    """``data/demo_<i>`` with ``states``, ``actions`` and ``obs/<name>``, and the split in ``mask``."""

    suffix = ".hdf5"

    def _tables(self) -> dict[str, _Shape]:
        kinds = self._kinds()
        return {
            name: ((length, *kinds[column][0]), kinds[column][1])
            for number, length in enumerate(self.outline.lengths)
            for column, name in self._names(number).items()
        }

    def _names(self, number: int) -> dict[str, str]:
        places = {"image": "obs/image", "proprio": "obs/proprio", "state": "states", "action": "actions"}
        names = [name for name in self._kinds() if name != "validation"]
        return {name: f"data/demo_{number}/{places.get(name, name)}" for name in names}

    def _first_row(self, number: int) -> int:
        return 0

    def _describe(self, h5py: Any, file: Any) -> None:
        lengths, validation = self.outline.lengths, self.outline.validation
        for number, length in enumerate(lengths):
            file[f"data/demo_{number}"].attrs["num_samples"] = length
        file["data"].attrs["total"] = sum(lengths)
        parts = {"train": set(range(len(lengths))) - validation, "valid": validation}
        for name, numbers in parts.items():
            if numbers:
                file[f"mask/{name}"] = np.array([f"demo_{number}" for number in sorted(numbers)], "S")
