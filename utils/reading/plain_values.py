"""Plain data out of what a pickle was read as: containers, numbers, texts, NumPy arrays and tensors."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import Tensor

from utils.reading.pickle_values import MADE_BY, Inert, inert_class, is_key, storage_type
from utils.reading.tensor_record import MAX_DIMS, TensorRecord

MAX_VALUES = 500_000  # as often as a value stands somewhere: a small file may put one list into itself many times
MAX_DEPTH = 32
DTYPE = re.compile(r"[biufcSUO?]\d{0,6}")
PLAIN = (bool, int, float, complex, str, bytes, bytearray, type(None))


class PlainValues:
    """Makes plain data, within limits of number, depth and bytes.

    Args:
        most_bytes: Bytes that texts and arrays may take beside those in the file itself.
        read: Reads a tensor out of its record; without it there must be none.
    """

    def __init__(self, most_bytes: int, read: Callable[[TensorRecord], Tensor] | None = None) -> None:
        self._left, self._read, self._count = most_bytes, read, 0

    def finished(self, value: Any, depth: int = 0) -> Any:
        """Return the value with nothing but plain data in it.

        Raises:
            ValueError: If it holds anything else, or too much.
        """
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(
                f"it has more than {MAX_DEPTH} levels" if depth > MAX_DEPTH else f"it has more than {MAX_VALUES} values"
            )
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, list | tuple | set):
            return type(value)(self.finished(item, depth + 1) for item in value)
        if isinstance(value, dict):
            keys = _keys(self.finished(key, depth + 1) for key in value)
            items = [self.finished(item, depth + 1) for item in value.values()]
            return (OrderedDict if isinstance(value, OrderedDict) else dict)(zip(keys, items, strict=True))
        if isinstance(value, TensorRecord) and self._read is not None:
            return self._read(value)
        if isinstance(value, Inert) and value.global_name in BUILDERS:
            return BUILDERS[value.global_name](self, value, depth)
        found = value.global_name if isinstance(value, Inert) else type(value).__name__
        raise ValueError(f"it holds a {found}, which is neither a number nor a text nor a container")

    def spend(self, num_bytes: int) -> None:
        """Note that so many bytes are made.

        Raises:
            ValueError: If there were too many.
        """
        self._left -= num_bytes
        if self._left < 0:
            raise ValueError("its parts are used so often that they need far more memory than the file")


def plain_name(module: str, name: str) -> Any:
    """Return what stands in for a name in a file of plain data; None if no such file needs that name."""
    wanted = f"{module[:80]}.{name[:80]}".replace("numpy._core.", "numpy.core.")
    if wanted in BUILDERS or wanted == "numpy.ndarray":  # that is the first argument of what makes an array
        return inert_class(wanted)
    return MADE_BY.get(wanted) or storage_type(module, name)


def _keys(values: Iterable[Any]) -> list[Any]:
    """Check what is about to be hashed: of other values, a file may hold a hundred thousand with one hash."""
    keys = list(values)
    if not all(map(is_key, keys)):
        raise ValueError("a key of a dict, or a member of a set, is neither a short text nor a number")
    return keys


def _set(values: PlainValues, later: Inert, depth: int) -> Any:
    items = _keys(values.finished(later.arguments[0], depth + 1) if later.arguments else ())
    return (frozenset if later.global_name.endswith("frozenset") else set)(items)


def _bytes(values: PlainValues, later: Inert, depth: int) -> Any:
    """Do ``bytes()``, ``bytearray(b"...")``, ``bytearray("...", "latin-1")``; ``_codecs.encode("...", "latin1")``."""
    content, *encoding = later.arguments or (b"",)
    content = values.finished(content, depth + 1)
    if isinstance(content, str) and encoding in (["latin1"], ["latin-1"]):
        content = content.encode("latin-1")
    if not isinstance(content, bytes):
        raise ValueError("it makes bytes out of something else than a text")
    values.spend(len(content))
    return bytearray(content) if later.global_name.endswith("bytearray") else content


def _complex(values: PlainValues, later: Inert, depth: int) -> complex:
    real, imaginary = later.arguments
    return complex(float(real), float(imaginary))


def _dtype(values: PlainValues, later: Any, depth: int) -> np.dtype[Any]:
    if not (isinstance(later, Inert) and later.global_name == "numpy.dtype" and isinstance(later.arguments[0], str)):
        raise ValueError("an array's type is not described by a name")
    order: Any = later.state[1] if isinstance(later.state, tuple) and len(later.state) > 1 else "|"
    if not DTYPE.fullmatch(later.arguments[0]) or order not in ("<", ">", "|", "="):
        raise ValueError("an array holds something else than numbers and texts")
    return np.dtype(later.arguments[0]).newbyteorder(order)


def _scalar(values: PlainValues, later: Inert, depth: int) -> Any:
    kind, content = later.arguments
    return _array_of(values, content, _dtype(values, kind, depth), (), depth)[()]


def _array(values: PlainValues, later: Inert, depth: int) -> Any:
    version, shape, kind, in_columns, content = later.state
    if version != 1:
        raise ValueError("an array is described in a way that is not known")
    return _array_of(values, content, _dtype(values, kind, depth), shape, depth, "F" if in_columns is True else "C")


def _frombuffer(values: PlainValues, later: Inert, depth: int) -> Any:
    content, kind, shape, order = later.arguments[:4]
    return _array_of(values, content, _dtype(values, kind, depth), shape, depth, order)


def _array_of(
    values: PlainValues, content: Any, dtype: np.dtype[Any], shape: Any, depth: int, order: Any = "C"
) -> np.ndarray[Any, Any]:
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMS or order not in ("C", "F"):
        raise ValueError("an array's shape is not described by a few numbers")
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("an array's shape is not described by numbers from zero up")
    content = values.finished(content, depth + 1)
    if dtype.kind == "O" and isinstance(content, list):
        flat = np.empty(len(content), dtype)
        flat[:] = content
    elif dtype.kind != "O" and isinstance(content, bytes | bytearray) and dtype.itemsize:
        values.spend(len(content))
        flat = np.frombuffer(content, dtype).copy()
    else:
        raise ValueError("an array's numbers are not there")
    if math.prod(shape) != len(flat):
        raise ValueError(f"an array of the shape {shape} has {len(flat)} numbers")
    return flat.reshape(shape, order=order)


BUILDERS: dict[str, Callable[[PlainValues, Any, int], Any]] = {
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.complex": _complex,
    "_codecs.encode": _bytes,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _frombuffer,
}
"""What plain data are made by besides the opcodes of a pickle."""
