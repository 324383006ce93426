"""Descriptions of tensors that lie in a file of torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_DIMS = 16
KEY = re.compile(r"\w{1,64}", re.ASCII)
STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}
"""What the storages that can be read are called in a file, and the type of their elements."""


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor that lies in an archive, before anybody has read it.

    Attributes:
        key: Name of its storage, the record ``data/<key>`` of the archive.
        dtype: Of the storage.
        numel: Length of the storage, in elements.
        offset: Where the tensor begins in the storage, in elements.
        shape: Of the tensor.
        stride: Of the tensor, in elements.

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
        if self.dtype not in STORAGES.values() or not isinstance(self.key, str) or not KEY.fullmatch(self.key):
            raise ValueError("a tensor's storage is not described by a type and a name")
        if not all(isinstance(sizes, tuple) and len(sizes) <= MAX_DIMS for sizes in (self.shape, self.stride)):
            raise ValueError(f"a tensor's shape is no tuple of at most {MAX_DIMS} numbers")
        numbers = (self.numel, self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise ValueError("a tensor's place in its storage is not described by numbers from zero up")

    @property
    def storage_bytes(self) -> int:
        """Bytes of the whole storage."""
        return self.numel * self.dtype.itemsize


def view_of(storage: Tensor, record: TensorRecord, spare: int = 0) -> Tensor:
    """Return the tensor of a record as a part of its storage.

    Args:
        storage: The whole storage, (numel,).
        record: Describes the tensor.
        spare: Bytes that a tensor may have beyond those of its storage, by repeating numbers.

    Raises:
        ValueError: If it reaches beyond the storage, or is larger than it by repeating numbers.
    """
    last = record.offset + sum((size - 1) * step for size, step in zip(record.shape, record.stride, strict=True))
    count = math.prod(record.shape)
    if count and (last >= len(storage) or count > max(len(storage), spare // record.dtype.itemsize)):
        raise ValueError(f"a storage, data/{record.key}, is smaller than the shape {record.shape} says")
    return storage.as_strided(record.shape, record.stride, record.offset if count else 0)
