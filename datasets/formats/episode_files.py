"""One image file per episode."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from datasets.files import dataset_error, open_tensor, unreadable
from datasets.formats.video import read_frames, video_size
from utils.reading.mapped_tensor import MappedTensor
from utils.reading.opening import FileError

_AGAIN = "Delete it and fetch or collect it again."
_HEADER_BYTES = 8192  # more than the headers of two torch.save files differ: record names, versions, alignment
_IMAGES_PER_CHECKSUM = 4096  # bytes of images for each byte of checksums, at least


def episode_name(number: int, suffix: str = ".pth") -> str:
    """File name of an episode: three digits below 1000, as many as needed above."""
    return f"episode_{number:03d}{suffix}"


def episode_sizes(folder: Path, count: int, suffix: str = ".pth") -> list[int]:
    """Sizes in bytes of the files of episodes 0..count - 1, from one listing of the folder.

    Raises:
        DatasetError: If one is missing.
    """
    try:
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(folder)}
    except FileNotFoundError as error:
        remedy = "Finish the download or the collection, or correct data_path."
        raise dataset_error(folder, "the folder of the episode files", "no such folder", remedy) from error
    names = [episode_name(number, suffix) for number in range(count)]
    missing = [number for number, name in enumerate(names) if name not in sizes]
    if missing:
        remedy = "Finish the download or the collection"
        if missing[0]:
            remedy += f", or use the episodes before it with n_rollout={missing[0]}"
        found = f"no file (missing: {len(missing)} of {count} episodes)"
        raise dataset_error(folder / names[missing[0]], "an episode file", found, remedy + ".")
    return [sizes[name] for name in names]


def check_episode_steps(number: int, steps: Sequence[int], num_frames: Sequence[int]) -> None:
    """Raise IndexError unless episode ``number`` of those with ``num_frames`` frames has all the ``steps``."""
    if not 0 <= number < len(num_frames):
        raise IndexError(f"episode {number} of {len(num_frames)}")
    if len(steps) and not 0 <= min(steps) <= max(steps) < num_frames[number]:
        raise IndexError(f"steps {list(steps)} of an episode with {num_frames[number]} frames")


class TensorEpisodes:
    """Episodes stored as one tensor (F, 3, S, S) or (F, S, S, 3) per file, 0..255, with images all alike.

    An episode of T raw actions has F = T or T + 1 frames, the same in all files. The files are checked when this is
    made, without opening more than the first: existence, and size compared with what the first one and the lengths
    promise, so that a truncated download shows before a training starts, not in its middle.

    Args:
        folder: Where the episode files lie.
        lengths: (n,) T of each episode; episodes 0..n - 1 are used.
        channels_last: The files hold (F, S, S, 3).

    Raises:
        DatasetError: If a file is missing or has an unexpected size, or the first has a wrong shape or type.
    """

    def __init__(self, folder: Path, lengths: Tensor, channels_last: bool = False) -> None:
        self.folder = folder
        self.channels_last = channels_last
        self._image_form = "S, S, 3" if channels_last else "3, S, S"
        self._sound: dict[bytes, set[int]] = {}  # what was found to be sound of each file: once is enough
        first = open_tensor(self._path(0), self._sound)
        self._check_first(first, int(lengths[0]))
        self.image_shape, self.dtype = first.shape[1:], first.dtype
        self.frame_size = int(first.shape[2])
        self.num_frames: list[int] = (lengths + (first.shape[0] - lengths[0])).tolist()
        self._check_sizes(self.image_shape.numel() * self.dtype.itemsize)

    def frames(self, number: int, steps: Sequence[int]) -> Tensor:
        """Read the frames at these steps of one episode: (len(steps), 3, S, S); the other frames stay on disk.

        Raises:
            DatasetError: If the file is missing, damaged, or unlike the first one.
            IndexError: If there is no such episode or step.
        """
        check_episode_steps(number, steps, self.num_frames)
        episode = open_tensor(self._path(number), self._sound)
        shape = (self.num_frames[number], *self.image_shape)
        if episode.shape != shape or episode.dtype != self.dtype:
            expected = f"{shape} of {self.dtype}, as episode 0"
            raise dataset_error(self._path(number), expected, f"{tuple(episode.shape)} of {episode.dtype}", _AGAIN)
        chosen = self._rows(episode, number, steps)
        return chosen.permute(0, 3, 1, 2).contiguous() if self.channels_last else chosen

    def _path(self, number: int) -> Path:
        return self.folder / episode_name(number)

    def _rows(self, episode: MappedTensor, number: int, steps: Sequence[int]) -> Tensor:
        try:
            return episode.rows(steps)
        except FileError as error:
            raise unreadable(error, self._path(number)) from error

    def _check_first(self, first: MappedTensor, length: int) -> None:
        remedy = "Fetch the original data set."
        channels, *sides = (3, 1, 2) if self.channels_last else (1, 2, 3)
        if (
            len(first.shape) != 4
            or first.shape[0] - length not in (0, 1)
            or first.shape[channels] != 3
            or len({first.shape[side] for side in sides}) > 1
        ):
            expected = f"shape ({length if self.channels_last else length + 1}, {self._image_form})"
            raise dataset_error(self._path(0), expected, tuple(first.shape), remedy)
        if first.dtype not in (torch.uint8, torch.float32):
            raise dataset_error(self._path(0), "uint8 or float32 values", first.dtype, remedy)
        image = self._rows(first, 0, [0])
        low, high = image.min().item(), image.max().item()
        if not (low > -1 and 1 < high < 256):  # resizing overshoots 255 by a rounding error
            remedy = "Images are stored as 0..255, not 0..1; convert them."
            raise dataset_error(self._path(0), "values in 0..255", f"{low:g}..{high:g} in its first frame", remedy)

    def _check_sizes(self, frame_bytes: int) -> None:
        for number, size in enumerate(episode_sizes(self.folder, len(self.num_frames))):
            payload = self.num_frames[number] * frame_bytes
            if not payload < size < payload + payload // _IMAGES_PER_CHECKSUM + _HEADER_BYTES:
                expected = f"about {payload} bytes ({self.num_frames[number]} frames like those of episode 0)"
                raise dataset_error(self._path(number), expected, f"{size} bytes", _AGAIN)


class VideoEpisodes:
    """Episodes stored as one mp4 file each, with images all alike; an episode has at least as many frames as actions.

    All files are checked at once when this is made, without opening more than the first: existence, and that they are
    not empty.

    Args:
        folder: Where the episode files lie.
        lengths: (n,) raw actions of each episode; episodes 0..n - 1 are used.

    Raises:
        DatasetError: If a file is missing or empty, or the first is damaged, too short or not square.
    """

    def __init__(self, folder: Path, lengths: Tensor) -> None:
        self.folder = folder
        self.lengths: list[int] = lengths.tolist()
        for number, size in enumerate(episode_sizes(folder, len(self.lengths), ".mp4")):
            if not size:
                raise dataset_error(self.path(number), "an mp4 file", "an empty file", _AGAIN)
        count, height, width = video_size(self.path(0))
        if height != width or count < self.lengths[0]:
            expected = f"at least {self.lengths[0]} square frames"
            raise dataset_error(self.path(0), expected, f"{count} of {width} x {height} pixels", _AGAIN)
        self.frame_size = width

    def path(self, number: int) -> Path:
        """The file of an episode."""
        return self.folder / episode_name(number, ".mp4")

    def frames(self, number: int, steps: Sequence[int]) -> Tensor:
        """Decode the frames at these steps of one episode: (len(steps), 3, S, S) uint8, RGB.

        Raises:
            DatasetError: If the file is missing, damaged or too short, or its images have another size than the first.
            IndexError: If there is no such episode or step.
        """
        check_episode_steps(number, steps, self.lengths)
        frames = read_frames(self.path(number), steps, self.lengths[number])
        height, width = frames.shape[2:]
        if height != self.frame_size or width != self.frame_size:
            expected = f"{self.frame_size} x {self.frame_size} pixels, as {self.path(0).name}"
            raise dataset_error(self.path(number), expected, f"{width} x {height}", _AGAIN)
        return frames
