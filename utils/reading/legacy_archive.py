"""Files of torch before 1.6: pickles one after the other, then the bytes of every storage."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.reading.opening import open_regular
from utils.reading.pickles import Names, load_pickle
from utils.reading.tensor_record import TensorRecord
from utils.reading.torch_archive import MAX_PICKLE, MAX_RECORDS, Archive, TorchArchive

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
COUNT = struct.Struct("<q")
HEADER = 3  # pickles before that of the content: a mark, a version, and what machine wrote it


def open_archive(path: Path, is_sound: bool = False) -> Archive:
    """Open what ``torch.save`` wrote, in today's form or that of earlier versions.

    Args:
        path: The file.
        is_sound: See ``TorchArchive``.

    Raises:
        FileError: If it is no file; a pipe, say, would never end.
        OSError: If it cannot be read.
        Exception: Of any kind, if it is damaged.
    """
    return LegacyArchive(path) if is_legacy(path) else TorchArchive(path, is_sound)


def is_legacy(path: Path) -> bool:
    """Whether a file was written by torch before 1.6; raises as ``open_archive`` does."""
    with open_regular(path) as file:
        return file.read(len(MAGIC)) == MAGIC


class LegacyArchive(Archive):
    """A file of torch before 1.6, in which there are no checksums."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._places: dict[str, tuple[TensorRecord, int]] = {}  # key -> what it is, where its numbers begin

    def load(self, names: Names, strict: bool = False) -> Any:
        """See the base class."""
        self._file.seek(0)
        source = io.BytesIO(self._file.read(min(self.size, MAX_PICKLE)))
        for _ in range(HEADER):
            load_pickle(source, _no_names)
        storages: dict[str, TensorRecord] = {}
        content = load_pickle(source, names, strict, storages)
        self._find(load_pickle(source, _no_names), storages, source.tell())
        return content

    def storage(self, record: TensorRecord) -> Tensor:
        """See the base class."""
        whole, start = self._places[record.key]
        self._file.seek(start)
        content = bytearray(self._file.read(whole.storage_bytes))
        if len(content) != whole.storage_bytes:
            raise ValueError(f"it ends within data/{record.key}")
        return torch.frombuffer(content, dtype=whole.dtype) if content else torch.empty(0, dtype=whole.dtype)

    def _find(self, keys: Any, storages: Mapping[str, TensorRecord], start: int) -> None:
        """Note where each storage begins: in the order of ``keys`` from ``start`` on, each behind its length."""
        if not isinstance(keys, list) or len(keys) > MAX_RECORDS or set(map(repr, keys)) != set(map(repr, storages)):
            raise ValueError("its list of storages is not that of its tensors")
        for key in keys:
            self._file.seek(start)
            if self._file.read(COUNT.size) != COUNT.pack(storages[key].numel):
                raise ValueError(f"data/{key} should have {storages[key].numel} numbers, and has not")
            self._places[key] = storages[key], start + COUNT.size
            start += COUNT.size + storages[key].storage_bytes


def _no_names(module: str, name: str) -> None:
    """Refuse every class: none is allowed."""
