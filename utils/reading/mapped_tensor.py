"""Tensors in files that are mapped into memory: only what is indexed is read."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from utils.reading.checksums import Checksums
from utils.reading.legacy_archive import is_legacy
from utils.reading.opening import open_regular
from utils.reading.plain_values import plain_name
from utils.reading.tensor_record import TensorRecord, view_of
from utils.reading.torch_archive import TorchArchive
from utils.reading.torch_file import AGAIN, broken, read_torch

REPEATED_BYTES = 16_000_000  # of a table that says one number for many steps; a larger one fills the memory


class MappedTensor:
    """The tensor that ``torch.save`` wrote into a file. Files without checksums are believed.

    The form of torch before 1.6 is read whole instead of mapped.

    Args:
        path: The file.
        remedy: What to do about a damaged one, for messages.
        sound: Chunks of the file that were checked before, by the checksums they had; filled by this one.

    Raises:
        FileError: If the file is damaged, or holds something else than one tensor.
        OSError: If it cannot be read.
    """

    def __init__(self, path: Path, remedy: str = AGAIN, sound: dict[bytes, set[int]] | None = None) -> None:
        self.path = path
        self._start = 0
        self._checksums: Checksums | None = None
        try:
            self._tensor = self._whole(path, remedy) if is_legacy(path) else self._mapped(sound)
        except OSError:
            raise
        except Exception as error:  # damaged bytes make anything of the readers
            raise broken(path, error, remedy) from None

    @property
    def shape(self) -> torch.Size:
        """The tensor's shape."""
        return self._tensor.shape

    @property
    def dtype(self) -> torch.dtype:
        """The tensor's type."""
        return self._tensor.dtype

    def whole(self) -> Tensor:
        """Return all of it, checked; copy before writing into it.

        Raises:
            FileError: If it is damaged.
        """
        if self._checksums is not None:
            self._checksums.check()
        return self._tensor

    def rows(self, numbers: Sequence[int]) -> Tensor:
        """Copy some rows along the first dimension, checked; the others stay on the disk.

        Raises:
            FileError: If one is damaged.
        """
        if self._checksums is not None:
            for number in numbers:
                row = self._tensor[number]
                begin = self._start + int(row.storage_offset()) * row.element_size()
                spread = sum((size - 1) * step for size, step in zip(row.shape, row.stride(), strict=True))
                self._checksums.check(begin, begin + (spread + 1) * row.element_size())
        return self._tensor[torch.as_tensor(numbers, dtype=torch.int64)]

    @staticmethod
    def _whole(path: Path, remedy: str) -> Tensor:
        content = read_torch(path, remedy)
        if not isinstance(content, Tensor):
            raise TypeError(f"it holds a {type(content).__name__} instead of one tensor")
        return content

    def _mapped(self, sound: dict[bytes, set[int]] | None) -> Tensor:
        with open_regular(self.path) as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # as torch does: nothing reaches the disk
        checksums = Checksums(self.path, memoryview(content), sound)
        checksums.check(0, 1)
        checksums.check(max(checksums.size - 1, 0))
        with TorchArchive(self.path) as archive:
            record = archive.load(plain_name, strict=True)
            if not isinstance(record, TensorRecord):
                raise TypeError(f"it holds a {type(record).__name__} instead of one tensor")
            self._start = archive.place(record)
        checksums.check(0, self._start)
        checksums.check(self._start + record.storage_bytes)
        self._checksums = checksums if checksums else None
        if not record.numel:
            return view_of(torch.empty(0, dtype=record.dtype), record)
        if self._start % record.dtype.itemsize:
            return self._whole(self.path, AGAIN)  # not by torch, which aligns them
        storage = torch.frombuffer(content, dtype=record.dtype, count=record.numel, offset=self._start)
        return view_of(storage, record, REPEATED_BYTES)
