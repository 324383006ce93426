"""Writing the images of one collected episode, as one tensor or as a video."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

import av
import torch
from torch import Tensor

from datasets.files import write_whole
from utils.tensor_files import write_torch

_FILE_OVERHEAD = 4096
_VIDEO_RATIO = 20  # a video of simple drawings takes at most about this part of the raw images


class EpisodeStore(ABC):
    """One file per episode.

    Attributes:
        suffix: Of the files.
        dtype: That images are rendered in.
    """

    suffix: str
    dtype: torch.dtype

    @abstractmethod
    def bytes_needed(self, num_frames: int, size: int) -> int:
        """About what a file of so many images with this side takes on disk."""

    @abstractmethod
    def write(self, path: Path, frames: Tensor) -> None:
        """Write images (F, 3, S, S) of ``dtype``, 0..255, whole or not at all."""

    def check_size(self, size: int) -> None:  # noqa: B027  (a tensor takes any side)
        """Refuse images of a side that cannot be stored.

        Raises:
            ValueError: Naming the side.
        """

    def is_whole(self, path: Path, num_frames: int, size: int) -> bool:
        """Tell whether the file is there; files are written whole or not at all."""
        return path.exists() and path.stat().st_size > 0


class TensorStore(EpisodeStore):
    """``torch.save`` of one tensor, (F, 3, S, S) or (F, S, S, 3).

    Args:
        dtype: Float32 or uint8.
        channels_last: Whether the colours come last.
    """

    suffix = ".pth"

    def __init__(self, dtype: torch.dtype, channels_last: bool = False) -> None:
        self.dtype = dtype
        self.channels_last = channels_last

    def bytes_needed(self, num_frames: int, size: int) -> int:
        """See the base class."""
        return num_frames * 3 * size**2 * self.dtype.itemsize + _FILE_OVERHEAD

    def write(self, path: Path, frames: Tensor) -> None:
        """See the base class."""
        ordered = frames.movedim(1, -1) if self.channels_last else frames
        write_torch(path, ordered.clone(memory_format=torch.contiguous_format))  # a view would drag all else into it

    def is_whole(self, path: Path, num_frames: int, size: int) -> bool:
        """See the base class; a file that another program cut short is noticed too."""
        return path.exists() and path.stat().st_size > num_frames * 3 * size**2 * self.dtype.itemsize


class VideoStore(EpisodeStore):
    """H.264 in an mp4.

    Args:
        keyframe_every: Frames from one keyframe to the next: to read one image, so many are decoded at most.
        crf: Quality; 18 is visually lossless, lower is better and larger.
        fps: Frames per second.
    """

    suffix = ".mp4"
    dtype = torch.uint8

    def __init__(self, keyframe_every: int = 10, crf: int = 18, fps: int = 10) -> None:
        self.keyframe_every = keyframe_every
        self.crf = crf
        self.fps = fps

    def bytes_needed(self, num_frames: int, size: int) -> int:
        """See the base class."""
        return num_frames * 3 * size**2 // _VIDEO_RATIO + _FILE_OVERHEAD

    def check_size(self, size: int) -> None:
        """Videos store colours for squares of four pixels."""
        if size % 2:
            raise ValueError(f"image_size must be even for videos, got {size}")

    def write(self, path: Path, frames: Tensor) -> None:
        """See the base class."""
        images = frames.movedim(1, -1).contiguous().numpy()
        write_whole(path, lambda file: self._encode(file, images), "mp4")

    def _encode(self, file: BinaryIO, images: Any) -> None:
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=self.fps)
            stream.height, stream.width = images.shape[1:3]
            stream.pix_fmt = "yuv420p"
            # keyframes at fixed places; frames between them that no other refers to, so that a reader may skip them;
            # no macroblock-tree rate control, whose vector code makes the bits depend on what was in memory before
            params = f"keyint={self.keyframe_every}:min-keyint={self.keyframe_every}:scenecut=0:mbtree=0"
            params += ":bframes=4:b-adapt=0:b-pyramid=none"
            stream.options = {"crf": str(self.crf), "x264-params": params}
            stream.codec_context.thread_count = 1
            for image in images:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
