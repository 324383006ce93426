"""Frames of a long video at given times, as LeRobot keeps many episodes in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import torch
from torch import Tensor

_SKIPPED = 1.0  # seconds between two wanted frames that are decoded rather than jumped over


def read_at(path: Path, times: Sequence[float], tolerance: float) -> Tensor:
    """Read the frames shown at these times: (len(times), 3, H, W) uint8, RGB.

    Only the frames from the key frame before each wanted one are decoded, and nothing else of the file is read.

    Args:
        path: An mp4 file.
        times: Seconds, in any order; one may be repeated.
        tolerance: Seconds that a frame may be away from its time; less than half a frame.

    Raises:
        ValueError: If there is no such frame, or it is damaged.
        av.FFmpegError, OSError: If the file cannot be read.
    """
    found: dict[float, Tensor] = {}
    # Nothing but mp4: other containers may name files and addresses, which would be opened in turn.
    with av.open(str(path), format="mp4") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # readers are processes of their own
        stream.codec_context.options = {"err_detect": "explode"}
        frames, frame = container.decode(stream), None
        for time in sorted(set(times)):
            if frame is None or not 0 <= time - frame.time < _SKIPPED:
                assert stream.time_base is not None
                container.seek(max(0, int((time - tolerance) / stream.time_base)), stream=stream)
                frames = container.decode(stream)
                frame = next(frames, None)
            while frame is not None and frame.time < time - tolerance:
                frame = next(frames, None)
            if frame is None or abs(frame.time - time) > tolerance or frame.is_corrupt:
                raise ValueError(f"it has no undamaged frame at {time:.3f} s")
            picture = frame.reformat(format="rgb24", threads=1)  # for one small frame, threads take longer than it does
            found[time] = torch.from_numpy(picture.to_ndarray()).permute(2, 0, 1)
    return torch.stack([found[time] for time in times])
