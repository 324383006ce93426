"""Arrays that several processes see, in memory without a name."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shapes = Mapping[str, tuple[tuple[int, ...], str]]
"""The arrays in a buffer, in this order: name -> (shape, dtype)."""

ALIGNMENT = 64  # bytes, a cache line: two workers never write to the same one at an array's border


class SharedBuffer:
    """Memory that grows when larger arrays are asked for; every process that has the descriptor sees the same.

    Not ``multiprocessing.shared_memory``: its segments have names, which outlive a process that is killed and which
    the resource tracker of each process believes to be its own. A file without a name ends with the last process that
    has it open, however that ends. It also does not count towards /dev/shm, 64 MB in a container by default.

    Attributes:
        descriptor: Of the file; a child process opens the buffer with it.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        """Open the buffer with this descriptor, whose owner this object becomes; None makes a new, empty one."""
        self.descriptor = _nameless_file() if descriptor is None else descriptor
        self._memory: mmap.mmap | None = None
        self._close = weakref.finalize(self, os.close, self.descriptor)

    def arrays(self, shapes: Shapes) -> dict[str, NDArray[Any]]:
        """Views of the memory, valid until arrays of other shapes are asked for; contents are whatever was there."""
        size = max(sum(_padded_bytes(shape, dtype) for shape, dtype in shapes.values()), 1)
        if self._memory is None or len(self._memory) < size:
            if os.fstat(self.descriptor).st_size < size:
                os.ftruncate(self.descriptor, size)
            self._memory = mmap.mmap(self.descriptor, size)
        views, offset = {}, 0
        for name, (shape, dtype) in shapes.items():
            views[name] = np.ndarray(shape, dtype, self._memory, offset)
            offset += _padded_bytes(shape, dtype)
        return views

    def close(self) -> None:
        """Give the memory back, once nobody has a view of it any more."""
        self._memory = None
        self._close()


def _padded_bytes(shape: tuple[int, ...], dtype: str) -> int:
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // ALIGNMENT) * ALIGNMENT


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("episodes", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:  # macOS; already unlinked
        return os.dup(file.fileno())
