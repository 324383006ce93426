"""Reading ``.npz`` files of plain numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.printable import printable
from utils.reading.opening import FileError, checked_zip, open_regular

Array = np.ndarray[Any, np.dtype[Any]]

MAX_ARRAYS = 1_000
SMALL = 64_000_000  # bytes that arrays may unpack to however small the file is
MOST_PER_BYTE = 4  # beyond that
MAX_DIMS = 16
MAX_HEADER = 1_000
HEADER = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|[\x02\x03]\x00....)"
    rb"\{'descr': '(?P<dtype>[<>|=]?[biufc]\d{1,2})', 'fortran_order': (?P<columns>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,18}(?:, ?|(?=\))))*)\), \} *\n",
    re.DOTALL,
)
"""How an array of numbers begins. NumPy's own reader evaluates what stands there, and makes room for it at once."""


def read_npz(
    path: Path,
    remedy: str = "write it again with numpy.savez",
    most_per_byte: int = MOST_PER_BYTE,
    names: Container[str] | None = None,
) -> Mapping[str, Array]:
    """Read arrays of numbers in a file, by name.

    Args:
        path: The file.
        remedy: What to do about a broken one, for the message.
        most_per_byte: Bytes that each of its bytes may unpack to; up to ``SMALL`` in all is always allowed.
        names: Those to read, of which some may be missing; None: all.

    Raises:
        FileError: If it is no ``.npz``, is damaged, holds anything but numbers, or unpacks to far more than its size.
        OSError: If it cannot be read.
    """
    with open_regular(path) as file:
        try:
            with checked_zip(file, MAX_ARRAYS) as archive:
                members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
                if names is not None:
                    members = {name: each for name, each in members.items() if name in names}
                size = sum(member.file_size for member in members.values())
                if size > max(SMALL, most_per_byte * path.stat().st_size):
                    raise ValueError(f"it unpacks to {size / 1e6:.0f} MB")
                return {name: _array(archive.read(each), each.filename) for name, each in members.items()}
        except Exception as error:  # damaged bytes make anything of the readers of zip, deflate and array headers
            reason = printable(str(error), 200) or type(error).__name__
            raise FileError(f"{path} is no readable .npz of numbers ({reason}); {remedy}") from None


def _array(content: bytes, name: str) -> Array:
    """Make an array of the bytes of a ``.npy`` file; nothing is believed that they do not bear out."""
    found = HEADER.match(content[:MAX_HEADER])
    if found is None:
        raise ValueError(f"{name} does not begin like an array of numbers")
    dtype = np.dtype(found["dtype"].decode())
    shape = tuple(int(side) for side in found["shape"].replace(b" ", b"").split(b",") if side)
    there = len(content) - found.end()
    if len(shape) > MAX_DIMS or math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"{name} claims the shape {shape}, for which its {there} bytes are not enough or too many")
    values = np.frombuffer(content, dtype, offset=found.end())
    values = values.reshape(shape, order="F" if found["columns"] == b"True" else "C")
    return values.astype(dtype.newbyteorder("="))  # a copy: who gets it may write into it
