"""Reading the tensors of an archive, within the memory that its size allows."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from utils.reading.tensor_record import TensorRecord, is_whole, view_of


class Archive(Protocol):
    """A file of tensors: ``TorchArchive`` or ``LegacyArchive``."""

    size: int

    def storage(self, record: TensorRecord) -> Tensor:
        """The whole storage behind a tensor."""


class TensorReader:
    """Reads the tensors of an archive into memory of their own, unless they share a whole storage.

    Each storage is read once. All in all, no more than twice the file's size is handed out: a small file may describe
    many overlapping parts of one storage.

    Args:
        archive: to read from. keep_order: of the numbers in memory, where that is not the usual one.
    """

    def __init__(self, archive: Archive, keep_order: bool = False) -> None:
        self._archive = archive
        self._order = torch.preserve_format if keep_order else torch.contiguous_format
        self._storages: dict[str, Tensor] = {}
        self._left = 2 * archive.size

    def read(self, record: TensorRecord) -> Tensor:
        """The tensor of a record.

        Raises:
            ValueError: If it reaches beyond its storage, or more is asked for than the file can hold.
        """
        if record.key not in self._storages:
            self._spend(record.storage_bytes)
            self._storages[record.key] = self._archive.storage(record)
        view = view_of(self._storages[record.key], record)
        if is_whole(view):
            return view
        self._spend(view.nbytes)
        return view.clone(memory_format=self._order)

    def _spend(self, num_bytes: int) -> None:
        self._left -= num_bytes
        if self._left < 0:
            raise ValueError("its tensors overlap so much that they need more than twice the memory of the file")
