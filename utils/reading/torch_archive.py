"""The files that ``torch.save`` writes: a pickle, and the bytes of every tensor beside it in one zip archive."""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from utils.reading.opening import checked_zip, open_regular
from utils.reading.pickles import Names, load_pickle
from utils.reading.tensor_record import TensorRecord, view_of

MAX_PICKLE = 16_000_000  # bytes of data.pkl; real ones stay far below one million, as the tensors lie elsewhere
MAX_RECORDS = 20_000  # storages, and a few more; a checkpoint with optimisers has 1,000
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a record: its mark, and how long its name and its padding are


class Archive(ABC):
    """An open file of tensors; damage surfaces as an exception of any kind.

    Attributes:
        size: Bytes of the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_regular(path)
        self.size = os.fstat(self._file.fileno()).st_size
        self._storages: dict[str, Tensor] = {}
        self._left = 2 * self.size  # bytes of tensors that may still be handed out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @abstractmethod
    def load(self, names: Names, strict: bool = False) -> Any:
        """Return what was saved, with a ``TensorRecord`` for every tensor; see ``load_pickle``."""

    @abstractmethod
    def storage(self, record: TensorRecord) -> Tensor:
        """Read the whole storage behind a tensor, (numel,).

        Raises:
            ValueError: If it is not as long as the pickle says.
        """

    def tensor(self, record: TensorRecord, keep_order: bool = False) -> Tensor:
        """Read a tensor into memory of its own, unless it shares a whole storage with others.

        Each storage is read once. All in all, no more than twice the file's size is handed out: a small file may
        describe many overlapping parts of one storage.

        Args:
            record: Describes the tensor.
            keep_order: Keep the order of the numbers in memory where that is not the usual one.

        Raises:
            ValueError: If it reaches beyond its storage, or more is asked for than the file can hold.
        """
        if record.key not in self._storages:
            self._spend(record.storage_bytes)
            self._storages[record.key] = self.storage(record)
        view = view_of(self._storages[record.key], record)
        if view.is_contiguous() and view.nbytes == view.untyped_storage().nbytes():
            return view
        self._spend(view.nbytes)
        return view.clone(memory_format=torch.preserve_format if keep_order else torch.contiguous_format)

    def _spend(self, num_bytes: int) -> None:
        self._left -= num_bytes
        if self._left < 0:
            raise ValueError("its tensors overlap so much that they need more than twice the memory of the file")


class TorchArchive(Archive):
    """The zip archive that torch writes since 1.6.

    Args:
        path: The file.
        is_sound: Whether it has been compared with a checksum already, so that those of the zip need not be.

    Attributes:
        root: Folder in the archive that all records lie in, with its slash.
        pickled: Bytes of the pickle.
    """

    def __init__(self, path: Path, is_sound: bool = False) -> None:
        super().__init__(path)
        self._is_sound = is_sound
        try:
            self._zip = checked_zip(self._file, MAX_RECORDS)
            pickles = [n for n in self._zip.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError("it is a zip archive without a data.pkl")
            self.root = pickles[0].removesuffix("data.pkl")
            if self._zip.getinfo(pickles[0]).file_size > MAX_PICKLE:
                raise ValueError(f"its data.pkl is larger than {MAX_PICKLE // 10**6} MB")
            self.pickled = self.record("data.pkl")
            if f"{self.root}byteorder" in self._zip.namelist():
                order = self.record("byteorder", 16).decode("ascii", "backslashreplace")
                if order != sys.byteorder:
                    raise ValueError(f"its numbers are stored {order}-endian, this machine is {sys.byteorder}-endian")
        except BaseException:
            self._file.close()
            raise

    def load(self, names: Names, strict: bool = False) -> Any:
        """See the base class."""
        return load_pickle(io.BytesIO(self.pickled), names, strict)

    def names(self) -> list[str]:
        """List all records, in the order of the file, e.g. "data.pkl", "data/0"."""
        return [name.removeprefix(self.root) for name in self._zip.namelist() if name.startswith(self.root)]

    def storage(self, record: TensorRecord) -> Tensor:
        """Read a storage and compare it with its checksum; see the base class."""
        self._check_length(record)
        if self._is_sound:
            start, content = self.place(record), bytearray(record.storage_bytes)
            self._file.seek(start)
            self._file.readinto(content)  # type: ignore[attr-defined]
        else:
            content = bytearray(self.record(f"data/{record.key}"))
        return torch.frombuffer(content, dtype=record.dtype) if content else torch.empty(0, dtype=record.dtype)

    def place(self, record: TensorRecord) -> int:
        """Find where in the file the storage of a tensor begins.

        Raises:
            ValueError: If the record is not as long as the pickle says, or the file does not hold all of it.
        """
        info = self._check_length(record)
        self._file.seek(info.header_offset)
        mark, name, padding = LOCAL_HEADER.unpack(self._file.read(LOCAL_HEADER.size))
        start = info.header_offset + LOCAL_HEADER.size + name + padding
        if mark != b"PK\x03\x04" or start + info.file_size > self.size:
            raise ValueError(f"data/{record.key} is not where the index says")
        return start

    def record(self, name: str, most: int | None = None) -> bytes:
        """Read a record and compare it with its checksum; more than ``most`` bytes are refused."""
        info = self._info(name)
        if most is not None and info.file_size > most:
            raise ValueError(f"{name} has {info.file_size} bytes")
        return self._zip.read(info)

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = self._zip.getinfo(self.root + name)
        if info.compress_type != zipfile.ZIP_STORED:  # never by torch; the true size of packed data is anybody's guess
            raise ValueError(f"{name} is compressed, which torch.save never does")
        return info

    def _check_length(self, record: TensorRecord) -> zipfile.ZipInfo:
        info = self._info(f"data/{record.key}")
        if info.file_size != record.storage_bytes:
            raise ValueError(f"data/{record.key} should have {record.storage_bytes} bytes, it has {info.file_size}")
        return info
