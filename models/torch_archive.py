"""The zip archive that ``torch.save`` writes: one pickle, and the bytes of every tensor beside it."""

from __future__ import annotations

import math
import pickle
import re
import struct
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch before 1.6 begin
MAX_PICKLE = 16_000_000  # bytes of data.pkl; real ones stay far below one million, as the tensors lie elsewhere
MAX_DIMS = 16
KEY = re.compile(r"\w{1,64}", re.ASCII)
UNREADABLE = (  # what damaged bytes make of the readers of zip, pickle and tensors
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor that lies in an archive, before anybody has read it.

    Attributes:
        key: name of its storage, the record ``data/<key>`` of the archive.
        dtype: of the storage. numel: length of the storage, in elements.
        offset, shape, stride: the tensor's place in the storage, in elements.

    Raises:
        ValueError: If these are not a name, a type and numbers from zero up, or are more than 16 dimensions.
    """

    key: str
    dtype: torch.dtype
    numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.dtype, torch.dtype) or not isinstance(self.key, str) or not KEY.fullmatch(self.key):
            raise ValueError("a tensor's storage is not described by a type and a name")
        if not all(isinstance(sizes, tuple) and len(sizes) <= MAX_DIMS for sizes in (self.shape, self.stride)):
            raise ValueError(f"a tensor's shape is no tuple of at most {MAX_DIMS} numbers")
        numbers = (self.numel, self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise ValueError("a tensor's place in its storage is not described by numbers from zero up")


class TorchArchive:
    """Reads the records of a file of ``torch.save``; damage surfaces as one of ``UNREADABLE``.

    Args:
        path: the file.

    Attributes:
        size: of the file, bytes.
        root: folder in the archive that all records lie in, with its slash. pickled: the bytes of the pickle.
    """

    def __init__(self, path: Path) -> None:
        if is_legacy(path):
            raise ValueError("it is in the format of torch before 1.6; load and save it once with a newer torch")
        self.size = path.stat().st_size
        self._zip = zipfile.ZipFile(path)
        try:
            pickles = [n for n in self._zip.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError("it is a zip archive without a data.pkl")
            self.root = pickles[0].removesuffix("data.pkl")
            if self._zip.getinfo(pickles[0]).file_size > MAX_PICKLE:
                raise ValueError(f"its data.pkl is larger than {MAX_PICKLE // 10**6} MB")
            self.pickled = self.record("data.pkl")
            if f"{self.root}byteorder" in self._zip.namelist():
                order = self.record("byteorder")[:16].decode("ascii", "backslashreplace")
                if order != sys.byteorder:
                    raise ValueError(f"its numbers are stored {order}-endian, this machine is {sys.byteorder}-endian")
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def names(self) -> list[str]:
        """All records, in the order of the file, e.g. "data.pkl", "data/0"."""
        return [name.removeprefix(self.root) for name in self._zip.namelist() if name.startswith(self.root)]

    def storage(self, record: TensorRecord) -> Tensor:
        """The whole storage behind a tensor, (numel,), read and verified against its checksum.

        Raises:
            ValueError: If the record is not as long as the pickle says.
        """
        content = bytearray(self.record(f"data/{record.key}"))
        if len(content) != record.numel * record.dtype.itemsize:
            expected = record.numel * record.dtype.itemsize
            raise ValueError(f"data/{record.key} should have {expected} bytes, it has {len(content)}")
        return torch.frombuffer(content, dtype=record.dtype) if content else torch.empty(0, dtype=record.dtype)

    def record(self, name: str) -> bytes:
        """The bytes of a record, verified against its checksum."""
        info = self._zip.getinfo(self.root + name)
        if info.compress_type != zipfile.ZIP_STORED:  # never by torch; the true size of packed data is anybody's guess
            raise ValueError(f"{name} is compressed, which torch.save never does")
        return self._zip.read(info)


class TensorReader:
    """Reads the tensors of an archive into memory of their own, unless they share a whole storage.

    Each storage is read once. All in all, no more than twice the file's size is handed out: a small file may describe
    many overlapping parts of one storage.

    Args:
        archive: to read from.
    """

    def __init__(self, archive: TorchArchive) -> None:
        self._archive = archive
        self._storages: dict[tuple[str, torch.dtype], Tensor] = {}
        self._left = 2 * archive.size

    def read(self, record: TensorRecord) -> Tensor:
        """The tensor of a record.

        Raises:
            ValueError: If it reaches beyond its storage, or more is asked for than the file can hold.
        """
        place = (record.key, record.dtype)
        if place not in self._storages:
            self._spend(record.numel * record.dtype.itemsize)
            self._storages[place] = self._archive.storage(record)
        view = view_of(self._storages[place], record)
        if not _is_whole(view):
            self._spend(view.nbytes)
        return compact(view)

    def _spend(self, num_bytes: int) -> None:
        self._left -= num_bytes
        if self._left < 0:
            raise ValueError("its tensors overlap so much that they need more than twice the memory of the file")


def is_legacy(path: Path) -> bool:
    """Whether a file was written by torch before 1.6.

    Raises:
        FileNotFoundError: If it is not a file; a pipe, say, would never end.
    """
    if not path.is_file():
        raise FileNotFoundError("it does not exist or is not a file")
    with path.open("rb") as file:
        return file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC


def view_of(storage: Tensor, record: TensorRecord) -> Tensor:
    """The tensor of a record, as a part of its storage.

    Raises:
        ValueError: If it reaches beyond the storage, or is larger than it by repeating numbers.
    """
    last = record.offset + sum((size - 1) * step for size, step in zip(record.shape, record.stride, strict=True))
    count = math.prod(record.shape)
    if count and (last >= len(storage) or count > len(storage)):
        raise ValueError(f"a tensor {record.shape} does not fit into its storage, data/{record.key}")
    return storage.as_strided(record.shape, record.stride, record.offset if count else 0)


def compact(tensor: Tensor) -> Tensor:
    """The same numbers in memory of their own, unless they fill their storage already."""
    return tensor if _is_whole(tensor) else tensor.clone(memory_format=torch.contiguous_format)


def _is_whole(tensor: Tensor) -> bool:
    return tensor.is_contiguous() and tensor.nbytes == tensor.untyped_storage().nbytes()


def failure_reason(error: Exception) -> str:
    """One line saying why a file could not be loaded.

    torch puts its reason behind the advice to switch its guard off, which nobody should follow.
    """
    lines = [line for line in str(error).rpartition("WeightsUnpickler error:")[2].splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Weights only load failed"):
        del lines[0]
    return printable(lines[0].strip(), 300) if lines else type(error).__name__


def printable(text: str, length: int = 80) -> str:
    """Text out of a file as it may be shown: on one line, without control characters, and cut to ``length``."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:length])
    return shown if len(text) <= length else f"{shown}..."


def unreadable(path: Path, error: Exception) -> str:
    """The message for a file that turned out to be damaged."""
    if not path.is_file():
        return f"{path} does not exist or is not a file"
    size = path.stat().st_size
    reason = failure_reason(error) if size else "it is empty"
    return (
        f"{path} ({size} bytes) is not a readable PyTorch checkpoint: {reason}. "
        "It may be incomplete; copy or download it again"
    )
