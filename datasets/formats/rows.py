"""What the libraries of the column formats have in common: the rows of all episodes, by name of their column."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.files import DatasetError, dataset_error
from utils.printable import printable

Array = np.ndarray[Any, np.dtype[Any]]

AGAIN = "Fetch or convert the data set again."
_SMALL = 2**26  # bytes that a table may take however small its file is
_MOST_PER_BYTE = 1000  # beyond that; what compresses better is no recording


class Rows(ABC):
    """The columns of a data set, where they lie.

    Attributes:
        lengths: (n,) int64, rows of each episode.
        names: Of the columns of numbers.
        image_names: Of the columns of images.
    """

    lengths: Array
    names: list[str]
    image_names: list[str]

    @abstractmethod
    def table(self, name: str) -> Array:
        """A whole column of numbers: the rows of all episodes, end to end."""

    @abstractmethod
    def image_size(self, name: str) -> tuple[int, int]:
        """Height and width of the frames of a column."""

    @abstractmethod
    def frames(self, name: str, episode: int, steps: Sequence[int]) -> Tensor:
        """Read frames (len(steps), 3, H, W), uint8 or float32, at rows of one episode."""

    def times(self, episode: int) -> Array | None:
        """Recorded times of the rows of one episode, seconds; None where there are none."""
        return None

    def split(self, count: int) -> tuple[Tensor, Tensor] | None:
        """Training and validation part of the first ``count`` episodes, where the files say so."""
        return None


def library(module: str, package: str) -> Any:
    """Import what only one format needs.

    Raises:
        DatasetError: If it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name != module.partition(".")[0]:
            raise
        command = f"uv pip install '{package}'"
        raise DatasetError(f"these data need the package {package}, which is not installed: {command}") from error


@contextmanager
def reading(where: object) -> Iterator[None]:
    """Say of anything that a library raises in the block where it happened and what to do.

    Raises:
        DatasetError: In the place of any other exception, which is its cause.
    """
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:  # damaged files make anything of the readers
        reason = printable(str(error).partition("\n")[0], 200) or type(error).__name__
        raise DatasetError(f"{where} cannot be read ({reason}). {AGAIN}") from error


def check_room(where: object, shape: Sequence[int], dtype: Any, stored: int) -> None:
    """Refuse a table that would take far more memory than what is stored of it.

    Raises:
        DatasetError: Then.
    """
    needed = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if needed > max(_SMALL, _MOST_PER_BYTE * stored):
        found = f"{needed} bytes of {tuple(shape)} from {stored} bytes"
        raise dataset_error(where, "a table about as large as its file", found, AGAIN)


def lengths_from_ends(where: object, ends: Array) -> Array:
    """Rows of each episode, from where each ends, exclusive.

    Raises:
        DatasetError: If these are not whole numbers that increase.
    """
    counts = np.diff(ends, prepend=0) if ends.ndim == 1 and ends.dtype.kind in "iu" else np.zeros(0)
    if not len(counts) or (counts < 1).any():
        wrong = f"{ends[:6].tolist()}..." if ends.size else "none"
        if len(counts) and (counts < 1).any():
            number = int((counts < 1).argmax())
            wrong = f"{int(ends[number])} for episode {number} after {int(ends[number - 1]) if number else 0}"
        raise dataset_error(where, "ends of episodes that increase", wrong, AGAIN)
    return counts.astype(np.int64)


def as_frames(where: object, images: Array) -> Tensor:
    """Images (k, H, W, 3) or (k, 3, H, W) as frames (k, 3, H, W), uint8 or float32."""
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    if tensor.dtype not in (torch.uint8, torch.float32):
        tensor = tensor.float()
    if tensor.ndim != 4 or 3 not in (tensor.shape[1], tensor.shape[3]):
        raise dataset_error(where, "images (H, W, 3) or (3, H, W)", tuple(tensor.shape[1:]), "Name another column.")
    return tensor.movedim(3, 1).contiguous() if tensor.shape[3] == 3 else tensor


def is_image(shape: Sequence[int], dtype: Any) -> bool:
    """Whether a column (rows, ...) of this shape holds colour images."""
    return len(shape) == 4 and 3 in (shape[1], shape[3]) and np.dtype(dtype).kind in "fu" and min(shape[1:]) > 0


def image_sides(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of a column (rows, H, W, 3) or (rows, 3, H, W)."""
    return (shape[1], shape[2]) if shape[3] == 3 else (shape[2], shape[3])
