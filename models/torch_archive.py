"""The zip archive that ``torch.save`` writes: one pickle, and the bytes of every tensor beside it."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch before 1.6 begin


@dataclass(frozen=True)
class TensorRecord:
    """A tensor that lies in an archive, before anybody has read it.

    Attributes:
        key: name of its storage, the record ``data/<key>`` of the archive.
        dtype: of the storage. numel: length of the storage, in elements.
        offset, shape, stride: the tensor's place in the storage, in elements.
    """

    key: str
    dtype: torch.dtype
    numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class TorchArchive:
    """Reads the records of a file of ``torch.save``; damage surfaces as one of ``inert_pickle.UNREADABLE``.

    Args:
        path: the file.

    Attributes:
        root: folder in the archive that all records lie in, with its slash. pickled: the bytes of the pickle.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            if file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC:
                raise ValueError("it is in the format of torch before 1.6; load and save it once with a newer torch")
        self._zip = zipfile.ZipFile(path)
        try:
            pickles = [n for n in self._zip.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError("it is a zip archive without a data.pkl")
            self.root = pickles[0].removesuffix("data.pkl")
            self.pickled = self.record("data.pkl")
            if f"{self.root}byteorder" in self._zip.namelist():
                order = self.record("byteorder").decode()
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


def view_of(storage: Tensor, record: TensorRecord) -> Tensor:
    """The tensor of a record, as a part of its storage.

    Raises:
        RuntimeError: If it reaches beyond the storage.
    """
    return storage.as_strided(record.shape, record.stride, record.offset)


def compact(tensor: Tensor) -> Tensor:
    """The same numbers in memory of their own, unless they fill their storage already."""
    whole = tensor.is_contiguous() and tensor.nbytes == tensor.untyped_storage().nbytes()
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
