"""Replay buffers in zarr, formats 2 and 3, as Diffusion Policy records them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from datasets.files import dataset_error, dataset_root
from datasets.formats.columns import LAYOUT, ColumnTrajectories
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

_DATA, _ENDS = "data", "meta/episode_ends"
_REPLAYS = {
    "pusht": ("pusht_cchi_v7_replay.zarr", "pusht/pusht_cchi_v7_replay.zarr")
}  # as Diffusion Policy released it
_SAFE_CODECS = {
    *("blosc", "zstd", "lz4", "zlib", "gzip", "bz2", "lzma", "crc32c", "bytes", "transpose", "sharding_indexed"),
    *("shuffle", "delta", "bitround", "fixedscaleoffset", "quantize", "packbits", "astype"),
}
"""Codecs of numbers; others run code that is stored (pickle) or are not known."""


class ZarrTrajectories(ColumnTrajectories):
    """``data/<column>`` with the rows of all episodes, and ``meta/episode_ends``; a folder or a ``.zip`` of one.

    Row t holds frame t and state t, both before action t.
    """

    @classmethod
    def usual_place(cls, env: str) -> Path:
        """``$DATASET_DIR/<env>.zarr``, or Diffusion Policy's name for it."""
        places = [dataset_root() / name for name in (f"{env}.zarr", *_REPLAYS.get(env, ()))]
        return next((place for place in places if place.exists()), places[0])

    def open_rows(self, path: Path) -> Rows:
        """See the base class."""
        return ZarrRows(path)


class ZarrRows(Rows):
    """The arrays below ``data``.

    Args:
        path: Folder, or zip file.

    Raises:
        DatasetError: If it is no such replay buffer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, Any] | None = None
        if not path.exists():
            found = hint(path, lambda place: "episode_ends" if (place / _ENDS).exists() else None)
            remedy = "Correct env.dataset.data_path, or fetch the data (docs/data.md)."
            raise dataset_error(path, "a zarr folder with data and meta", found, remedy)
        group = self._group()
        members = self._arrays(group)
        self.lengths = lengths_from_ends(f"{path}, {_ENDS}", self._read(group, _ENDS))
        self._shapes = {name: (array.shape, array.dtype) for name, array in members.items()}
        self.image_names = [name for name, kind in self._shapes.items() if is_image(*kind)]
        self.names = [name for name in self._shapes if name not in self.image_names]
        for name, (shape, _) in self._shapes.items():
            if shape[0] != self.lengths.sum():
                expected = f"{self.lengths.sum()} rows, the last of episode_ends"
                raise dataset_error(f"{path}, data/{name}", expected, shape[0] if shape else "none", AGAIN)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def table(self, name: str) -> Array:
        """See the base class."""
        if not name.startswith(LAYOUT):  # these may be all zero, which is not written
            self._check_chunks(name)
        return self._read(self._group(), f"{_DATA}/{name}")

    def image_size(self, name: str) -> tuple[int, int]:
        """See the base class."""
        self._check_chunks(name)
        return image_sides(self._shapes[name][0])

    def frames(self, name: str, episode: int, steps: Sequence[int]) -> Tensor:
        """See the base class; each chunk that holds one of the rows is read once."""
        first = int(self.lengths[:episode].sum())
        rows, places = np.unique(np.asarray(steps, np.int64) + first, return_inverse=True)
        where = f"{self.path}, data/{name}"
        with reading(where):
            array = self._group()[f"{_DATA}/{name}"]
            images = np.asarray(array.oindex[rows]) if len(rows) else np.zeros((0, *array.shape[1:]), array.dtype)
        return as_frames(where, images[places])

    def _group(self) -> Any:
        """Open the group, once in each process."""
        if self._opened is None or self._opened[0] != os.getpid():
            zarr = library("zarr", "zarr>=3")
            with reading(self.path):
                store = zarr.storage.ZipStore(self.path, mode="r") if self.path.is_file() else str(self.path)
                self._opened = os.getpid(), zarr.open_group(store, mode="r")
        return self._opened[1]

    def _arrays(self, group: Any) -> dict[str, Any]:
        with reading(self.path):
            if _ENDS not in group or _DATA not in group:
                found = ", ".join(sorted(group)) or "nothing"
                raise dataset_error(self.path, f"the groups {_DATA} and meta, with {_ENDS}", found, AGAIN)
            arrays = dict(sorted(group[_DATA].arrays()))
        for name, array in [*arrays.items(), (_ENDS, group[_ENDS])]:
            unknown = set(_codecs(array.metadata.to_dict())) - _SAFE_CODECS
            if unknown or array.dtype.kind not in "fiub":
                found = ", ".join(sorted(unknown)) or array.dtype
                raise dataset_error(f"{self.path}, {name}", "plain numbers in known codecs", found, "Write it anew.")
        return arrays

    def _check_chunks(self, name: str) -> None:
        """Refuse an unfinished download: what is missing of an array would be read as zeros."""
        with reading(f"{self.path}, data/{name}"):
            array = self._group()[f"{_DATA}/{name}"]
            missing = array.nchunks - array.nchunks_initialized
        if missing:
            found = f"{missing} of them missing"
            raise dataset_error(f"{self.path}, data/{name}", f"{array.nchunks} chunks", found, "Finish the download.")

    def _read(self, group: Any, name: str) -> Array:
        with reading(f"{self.path}, {name}"):
            array = group[name]
            check_room(f"{self.path}, {name}", array.shape, array.dtype, array.nbytes_stored())
            return np.asarray(array[...])


def _codecs(described: Mapping[str, Any]) -> Iterator[str]:
    """The names of all codecs of an array, or of a codec that has others inside (shards)."""
    inner = [described.get("compressor"), *(described.get("filters") or ()), *(described.get("codecs") or ())]
    inner += described.get("index_codecs") or ()
    for codec in filter(None, inner):
        yield str(codec.get("id") or codec.get("name")).removeprefix("numcodecs.")
        yield from _codecs(codec.get("configuration") or {})
