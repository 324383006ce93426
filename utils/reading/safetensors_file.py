"""Safetensors files: read within limits, written and verified with a checksum of the whole file."""

from __future__ import annotations

import contextlib
import json
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash
from safetensors import safe_open
from torch import Tensor

from utils.reading.checksums import damaged
from utils.reading.json_file import MAX_BYTES, check_depth
from utils.reading.opening import FileError, failure_reason, open_regular
from utils.reading.tensor_record import MAX_DIMS

CHECKSUM = "checksum"  # entry of the metadata
UNKNOWN = "xxh3:" + "0" * 16  # what stands there while the checksum is computed
MAX_HEADER = MAX_BYTES  # real ones have 100 bytes for each tensor
MAX_TENSORS = 10_000
MAX_NAME = 512  # characters
AGAIN = "restore it from a copy"


class SafetensorsFile:
    """An open file, of which nothing but the header has been read. See ``open_safetensors``.

    Attributes:
        metadata: Texts by name, the checksum left out.
        shapes: Of each tensor.
        dtypes: Of each tensor, as the format calls them.
    """

    def __init__(self, file: Any, header: Mapping[str, Any]) -> None:
        self._file = file
        self.metadata: dict[str, str] = {k: v for k, v in header.get("__metadata__", {}).items() if k != CHECKSUM}
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        self.shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        self.dtypes: dict[str, str] = {name: entry["dtype"] for name, entry in entries.items()}

    def read(self, name: str) -> Tensor:
        """Read one tensor."""
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def read_all(self) -> dict[str, Tensor]:
        """Read all tensors, by name in the order of the alphabet."""
        return {name: self.read(name) for name in sorted(self.shapes)}


@contextlib.contextmanager
def open_safetensors(path: Path, remedy: str = AGAIN, ours: tuple[str, ...] | None = None) -> Iterator[SafetensorsFile]:
    """Open a file; what goes wrong until the block ends comes out as a ``FileError``.

    Args:
        path: The file.
        remedy: What to do about a broken one, for the message.
        ours: Names of the metadata that a file of ours has, besides its checksum; another name is one that was damaged.

    Raises:
        FileError: If it is damaged, no such file, or describes more than any real one.
        OSError: If it cannot be opened.
    """
    try:
        header = _checked_header(path, ours)
        with safe_open(path, framework="pt") as file:
            yield SafetensorsFile(file, header)
    except FileError:
        raise
    except Exception as error:  # damaged bytes make anything of the reader
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FileError(f"{path} is truncated or not a safetensors file ({failure_reason(error)}); {remedy}") from None


def add_checksum(path: Path) -> None:
    """Put the checksum of a file into its header, where ``UNKNOWN`` stands.

    Raises:
        OSError: If the disk does not take it.
    """
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # the library gives them any order
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        assert len(text) == length
        file.seek(8)
        file.write(text)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            digest = xxhash.xxh3_64_hexdigest(content)
        file.seek(8 + text.index(UNKNOWN.encode()) + len(UNKNOWN) - 16)
        file.write(digest.encode())


def _checked_header(path: Path, ours: tuple[str, ...] | None) -> dict[str, Any]:
    with open_regular(path) as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if length > MAX_HEADER:
            raise ValueError(f"its header has {length} bytes, more than {MAX_HEADER // 10**6} MB")
        text = file.read(length)
        header = json.loads(text)
        check_depth(header, 4)
        _check_entries(header)
        metadata = header.get("__metadata__", {})
        if ours is not None and not set(metadata) <= {*ours, CHECKSUM}:
            raise ValueError(f"its header has an entry that is not known: {', '.join(sorted(set(metadata)))}")
        if CHECKSUM in metadata:
            _verify(path, file.fileno(), text, metadata[CHECKSUM])
    return header


def _check_entries(header: Any) -> None:
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise ValueError(f"its header does not describe up to {MAX_TENSORS} tensors")
    for name, entry in header.items():
        if not isinstance(entry, dict) or len(name) > MAX_NAME:
            raise ValueError("its header describes something else than tensors with short names")
        if name == "__metadata__":
            if not all(isinstance(value, str) for value in entry.values()):
                raise ValueError("its metadata are no texts")
        elif not isinstance(entry.get("dtype"), str) or not _is_shape(entry.get("shape")):
            raise ValueError("a tensor is not described by a type and a shape")


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and len(shape) <= MAX_DIMS and all(type(side) is int for side in shape)


def _verify(path: Path, handle: int, header: bytes, said: str) -> None:
    """Compare the checksum in a file with its content."""
    found = re.search(rb"xxh3:([0-9a-f]{16})", header)
    if found is None or found[0].decode() != said:
        raise damaged(path)
    with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
        digest = xxhash.xxh3_64(view[: 8 + found.start(1)])
        digest.update(b"0" * 16)
        digest.update(view[8 + found.end(1) :])
        if digest.hexdigest() != found[1].decode():
            raise damaged(path)
