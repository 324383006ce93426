"""Replay buffers in zarr, as Diffusion Policy lays them out."""

from __future__ import annotations

import numpy as np

from datasets.converting.target import Target, bytes_of_columns, dtype_of_frames
from datasets.formats.rows import library

_IMAGE_CHUNK = 2**20  # bytes; samples take a few frames from all over an episode
_ROWS = 4096  # of a chunk of numbers


class ZarrTarget(Target):
    """``data/<column>`` and ``meta/episode_ends``, compressed without loss."""

    image_types = ("zarr2", "zarr3")
    suffix = ".zarr"

    def bytes_needed(self) -> int:
        """All images uncompressed."""
        return sum(self.outline.lengths) * self.outline.frame_bytes + bytes_of_columns(self.outline)

    def begin(self) -> None:
        """Make all arrays, of their final shape."""
        if self.place.exists():
            return
        zarr, lengths = library("zarr", "zarr>=3"), self.outline.lengths
        group = zarr.open_group(str(self.place), mode="w", zarr_format=int(self.outline.images[-1]))
        rows = sum(lengths)
        side = self.outline.frame.shape[-1]
        each = max(1, _IMAGE_CHUNK // self.outline.frame_bytes)
        kinds = {name: (rows_.shape[1:], rows_.dtype, _ROWS) for name, rows_ in self.outline.columns(0).items()}
        kinds["img"] = (side, side, 3), dtype_of_frames(self.outline), each
        for name, (shape, dtype, chunk) in kinds.items():
            chunks = (min(rows, chunk), *shape)
            # a chunk that is all zero is written, too: a missing one is a damage
            group.create_array(
                f"data/{name}", shape=(rows, *shape), chunks=chunks, dtype=dtype, config={"write_empty_chunks": True}
            )
        ends = np.cumsum(lengths)
        group.create_array("meta/episode_ends", shape=ends.shape, chunks=ends.shape, dtype=np.int64)[...] = ends

    def write(self, numbers: range) -> None:
        """Fill in the rows."""
        group = library("zarr", "zarr>=3").open_group(str(self.place), mode="r+")
        for number in numbers:
            first = sum(self.outline.lengths[:number])
            rows = slice(first, first + self.outline.lengths[number])
            for name, values in self.outline.columns(number).items():
                group[f"data/{name}"][rows] = values
            group["data/img"][rows] = self.outline.frames(number).movedim(1, -1).numpy()

    def finish(self) -> None:
        """Nothing is left."""
