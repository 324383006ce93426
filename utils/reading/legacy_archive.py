"""Files of torch before 1.6: pickles one after the other, then the bytes of every storage."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from utils.reading.files import open_regular
from utils.reading.pickles import Names, load_pickle
from utils.reading.tensor_record import TensorRecord
from utils.reading.torch_archive import MAX_PICKLE, MAX_RECORDS

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
COUNT = struct.Struct("<q")
HEADER = 3  # pickles before that of the content: a mark, a version, and what machine wrote it


def is_legacy(path: Path) -> bool:
    """Whether a file was written by torch before 1.6.

    Raises:
        FileError: If it is no file; a pipe, say, would never end.
        OSError: If it cannot be read.
    """
    with open_regular(path) as file:
        return file.read(len(MAGIC)) == MAGIC


class LegacyArchive:
    """Reads such a file as ``TorchArchive`` reads the newer ones. There are no checksums in it.

    Args:
        path: the file.

    Attributes:
        size: of the file, bytes.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_regular(path)
        self.size = os.fstat(self._file.fileno()).st_size
        self._places: dict[str, tuple[TensorRecord, int]] = {}  # key -> what it is, where its numbers begin

    def __enter__(self) -> LegacyArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def load(self, names: Names, strict: bool = False) -> Any:
        """What was saved, with a ``TensorRecord`` for every tensor; see ``load_pickle``."""
        self._file.seek(0)
        source = cast(BinaryIO, _Limited(self._file))
        for _ in range(HEADER):
            load_pickle(source, _no_names)
        storages: dict[str, TensorRecord] = {}
        content = load_pickle(source, names, strict, storages)
        self._find(load_pickle(source, _no_names), storages)
        return content

    def storage(self, record: TensorRecord) -> Tensor:
        """The whole storage behind a tensor, (numel,).

        Raises:
            ValueError: If the file is cut short.
        """
        whole, start = self._places[record.key]
        self._file.seek(start)
        content = bytearray(self._file.read(whole.storage_bytes))
        if len(content) != whole.storage_bytes:
            raise ValueError(f"it ends within data/{record.key}")
        return torch.frombuffer(content, dtype=whole.dtype) if content else torch.empty(0, dtype=whole.dtype)

    def _find(self, keys: Any, storages: Mapping[str, TensorRecord]) -> None:
        """Note where each storage begins: they lie in the order of ``keys``, each behind its number of elements."""
        if not isinstance(keys, list) or len(keys) > MAX_RECORDS or set(map(repr, keys)) != set(map(repr, storages)):
            raise ValueError("its list of storages is not that of its tensors")
        start = self._file.tell()
        for key in keys:
            self._file.seek(start)
            if self._file.read(COUNT.size) != COUNT.pack(storages[key].numel):
                raise ValueError(f"data/{key} should have {storages[key].numel} numbers, and has not")
            self._places[key] = storages[key], start + COUNT.size
            start += COUNT.size + storages[key].storage_bytes


def _no_names(module: str, name: str) -> None:
    """Nothing is allowed."""


class _Limited(io.RawIOBase):
    """Reads no more of a file than a pickle ever takes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MAX_PICKLE

    def read(self, size: int = -1) -> bytes:
        return self._spent(self._file.read(min(size, self._left + 1) if size >= 0 else self._left + 1))

    def readline(self, size: int | None = -1) -> bytes:
        return self._spent(self._file.readline(self._left + 1))

    def _spent(self, content: bytes) -> bytes:
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"its pickle is larger than {MAX_PICKLE // 10**6} MB")
        return content
