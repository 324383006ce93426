"""The contract of what a data set is converted to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from datasets.files import DatasetError
from datasets.trajectories import Trajectories
from utils.files import write_json
from utils.reading.json_file import read_json

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Outline:
    """What all episodes have in common.

    Attributes:
        data: The data set that is converted.
        images: How images are stored, one of the target's ``image_types``.
        fps: Frames per second, for formats that say so.
        frame: The first frame (3, S, S).
        validation: Numbers of the episodes that validate.
    """

    data: Trajectories
    images: str
    fps: int
    frame: Tensor
    validation: frozenset[int]

    @property
    def lengths(self) -> list[int]:
        """Rows of each episode."""
        lengths: list[int] = self.data.lengths.tolist()
        return lengths

    @property
    def frame_bytes(self) -> int:
        """Of a frame as it is in memory."""
        return self.frame.numel() * self.frame.dtype.itemsize

    def columns(self, number: int) -> dict[str, Array]:
        """Rows of one episode but its images, by column, of the types that the data set has.

        ``state``, ``action`` and ``proprio``, ``layout_<name>`` for each name of the episode layout, and
        ``validation``, 1 where the episode validates.
        """
        length, data = self.lengths[number], self.data
        rows = {"state": data.states[number], "action": data.actions[number], "proprio": data.proprio(number)}
        values = {name: table[:length].numpy() for name, table in rows.items()}
        for name, layout in data.layout(number).items():
            if layout.ndim != 1:
                raise DatasetError(f"the layout {name} has the shape {tuple(layout.shape)}; vectors can be converted")
            values[f"layout_{name}"] = np.tile(layout.numpy(), (length, 1))
        return values | {"validation": np.full((length, 1), number in self.validation, np.uint8)}

    def frames(self, number: int) -> Tensor:
        """The frames (T, 3, S, S) of one episode."""
        return self.data.frames(number, range(self.lengths[number]))


class Target(ABC):
    """Writes episodes in order, some at a time; what is written may be written again.

    Args:
        place: File or folder to be made.
        outline: Of the data.

    Attributes:
        image_types: How images may be stored; the first is the default.
        suffix: Of the file or folder.

    Raises:
        DatasetError: If the format cannot hold such data.
    """

    image_types: ClassVar[Sequence[str]]
    suffix: ClassVar[str] = ""

    def __init__(self, place: Path, outline: Outline) -> None:
        self.place, self.outline = place, outline

    @abstractmethod
    def bytes_needed(self) -> int:
        """About what the data take on disk, at most."""

    @abstractmethod
    def begin(self) -> None:
        """Make what must be there before the first episode; called again where a conversion goes on."""

    @abstractmethod
    def write(self, numbers: range) -> None:
        """Write these episodes, the next ones."""

    @abstractmethod
    def finish(self) -> None:
        """Write what comes last."""

    def done(self) -> int:
        """Episodes that are written."""
        path = self._progress
        return int(read_json(path, dict, "delete it and convert again")["episodes"]) if path.exists() else 0

    def record(self, done: int) -> None:
        """Remember how many episodes are written, and on the disk."""
        write_json(self._progress, {"episodes": done})

    @property
    def _progress(self) -> Path:
        return self.place.parent / "progress.json"


def bytes_of_columns(outline: Outline) -> int:
    """Of all rows without images."""
    rows: Mapping[str, Array] = outline.columns(0)
    return sum(outline.lengths) * sum(table.nbytes // len(table) for table in rows.values())


def dtype_of_frames(outline: Outline) -> Any:
    """NumPy's type of the frames."""
    return outline.frame.numpy().dtype
