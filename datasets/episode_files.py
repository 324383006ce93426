"""One image file per episode."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from datasets.files import dataset_error, load_tensor

_HEADER_BYTES = 8192  # more than the headers of two torch.save files differ: record names, versions, alignment
_AGAIN = "Delete it and fetch or collect it again."


def episode_name(number: int) -> str:
    """File name of an episode: three digits below 1000, as many as needed above."""
    return f"episode_{number:03d}.pth"


class TensorEpisodes:
    """Episodes stored as one tensor (T or T + 1, 3, S, S) per file, 0..255, all alike.

    All files are checked at once when this is made, without opening more than the first: existence, and size compared
    with what the first one promises, so that a truncated download shows before a training starts, not in its middle.

    Args:
        folder: where the episode files lie.
        count: episodes 0..count - 1 are used.
        num_steps: T, raw actions of an episode.

    Raises:
        DatasetError: If a file is missing, has another size than the first, or the first has a wrong shape or type.
    """

    def __init__(self, folder: Path, count: int, num_steps: int) -> None:
        self.folder = folder
        self.count = count
        first = self._open(0)
        if (
            first.ndim != 4
            or first.shape[0] - num_steps not in (0, 1)
            or first.shape[1] != 3
            or (first.shape[2] != first.shape[3])
        ):
            expected = f"({num_steps + 1}, 3, S, S)"
            raise dataset_error(self._path(0), f"shape {expected}", tuple(first.shape), "Fetch the original data set.")
        if first.dtype not in (torch.uint8, torch.float32):
            raise dataset_error(self._path(0), "uint8 or float32 values", first.dtype, "Fetch the original data set.")
        low, high = first[0].min().item(), first[0].max().item()
        if not (low > -1 and 1 < high < 256):  # resizing overshoots 255 by a rounding error
            remedy = "Images are stored as 0..255, not 0..1; convert them."
            raise dataset_error(self._path(0), "values in 0..255", f"{low:g}..{high:g} in its first frame", remedy)
        self.shape, self.dtype = first.shape, first.dtype
        self.frame_size = int(first.shape[-1])
        self._check_sizes(first.numel() * first.element_size())

    def frames(self, number: int, steps: Sequence[int]) -> Tensor:
        """Read the frames at these steps of one episode: (len(steps), 3, S, S); the other frames stay on disk.

        Raises:
            DatasetError: If the file is missing, damaged, or unlike the first one.
            IndexError: If there is no such episode or step.
        """
        if not 0 <= number < self.count:
            raise IndexError(f"episode {number} of {self.count}")
        if steps and not 0 <= min(steps) <= max(steps) < self.shape[0]:
            raise IndexError(f"steps {list(steps)} of an episode with {self.shape[0]} frames")
        frames = self._open(number)
        if frames.shape != self.shape or frames.dtype != self.dtype:
            expected = f"{tuple(self.shape)} of {self.dtype}, as episode 0"
            raise dataset_error(self._path(number), expected, f"{tuple(frames.shape)} of {frames.dtype}", _AGAIN)
        return frames[torch.as_tensor(steps, dtype=torch.int64)]

    def _path(self, number: int) -> Path:
        return self.folder / episode_name(number)

    def _open(self, number: int) -> Tensor:
        return load_tensor(self._path(number))

    def _check_sizes(self, payload: int) -> None:
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(self.folder)}
        names = [episode_name(number) for number in range(self.count)]
        missing = [number for number, name in enumerate(names) if name not in sizes]
        if missing:
            remedy = "Finish the download or the collection"
            if missing[0]:
                remedy += f", or use the episodes before it with n_rollout={missing[0]}"
            found = f"no file (missing: {len(missing)} of {self.count} episodes)"
            raise dataset_error(self._path(missing[0]), "an episode file", found, remedy + ".")
        for number, name in enumerate(names):
            if not payload < sizes[name] < payload + _HEADER_BYTES:
                expected = f"about {payload} bytes, as episode 0"
                raise dataset_error(self._path(number), expected, f"{sizes[name]} bytes", _AGAIN)
