"""Looking at the frames of some episodes, and showing them: a sheet of them and a video."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datasets.previewing.findings import Finding
from datasets.previewing.survey import rows_of
from datasets.trajectories import Trajectories
from utils.pictures import GAP, captioned, tile, to_uint8, write_mp4, write_png

LOOKED_AT = 6  # frames of an episode
ON_SHEET, IN_VIDEO = 6, 4  # episodes
ACROSS, SIDE = 8, 112  # frames of a row of the sheet, pixels of each
VIDEO_FRAMES, VIDEO_SIDE, FPS = 60, 224, 10
STILL = 0.5  # deviations of a column of the states within which nothing need be seen to move
_UNREADABLE = (OSError, ValueError, LookupError, RuntimeError)  # what readers and their libraries raise


@dataclass
class _Seen:
    """Numbers of episodes by what is wrong with their frames, and one example of it each."""

    dark: list[int] = field(default_factory=list)
    frozen: list[int] = field(default_factory=list)
    ranges: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    digests: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))
    unreadable: list[Finding] = field(default_factory=list)


def frame_findings(data: Trajectories, numbers: Sequence[int]) -> list[Finding]:
    """Read a few frames of each of these episodes, the first and the last among them, and say what is suspicious."""
    seen = _Seen()
    moved = np.stack([rows_of(data, "states", number).std(0) for number in numbers]).max(0) if numbers else None
    for number in tqdm(numbers, desc="frames", unit="episode", leave=False):
        steps = _steps(int(data.lengths[number]), LOOKED_AT)
        try:
            frames = data.frames(number, steps)
        except _UNREADABLE as error:
            what = f"its frames cannot be read: {' '.join(str(error).split())}"
            seen.unreadable.append(Finding("truncated", what, "mend the file or leave the episode out", [number]))
            continue
        assert moved is not None
        _look(seen, number, frames, rows_of(data, "states", number)[steps] / np.maximum(moved, 1e-9))
    return [*seen.unreadable, *_said(seen)]


def _look(seen: _Seen, number: int, frames: Tensor, states: np.ndarray) -> None:
    low, high = frames.min().item(), frames.max().item()
    if low == high or (frames.amax((1, 2, 3)) == frames.amin((1, 2, 3))).any():
        seen.dark.append(number)
    elif not (low > -1 and 1.5 < high < 256):
        seen.ranges[f"0..{high:.3g}" if low >= 0 else f"{low:.3g}..{high:.3g}"].append(number)
    if len(frames) > 1 and (frames == frames[:1]).all() and np.ptp(states, axis=0).max() > STILL:
        seen.frozen.append(number)
    if low < high:
        seen.digests[hashlib.blake2b(frames.numpy().tobytes(), digest_size=16).digest()].append(number)


def _said(seen: _Seen) -> list[Finding]:
    found = [
        Finding("wrong scale", f"pixels of {span} instead of 0..255", "store images as 0..255", numbers)
        for span, numbers in seen.ranges.items()
    ]
    again = "record them again, or leave them out"
    if seen.dark:
        found.append(Finding("blank frames", "a frame of one colour alone", again, seen.dark))
    if seen.frozen:
        found.append(Finding("frozen frames", "all frames are the same though the states change", again, seen.frozen))
    for numbers in seen.digests.values():
        if len(numbers) > 1 and not set(numbers) <= set(seen.frozen):
            found.append(Finding("duplicate", "the same frames", "keep one of them", numbers))
    return found


def _steps(length: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, min(most, length)).round().astype(int)).tolist()


def draw_sheet(
    data: Trajectories, numbers: Sequence[int], named: Callable[[int], str], notes: dict[int, str], path: Path
) -> None:
    """Write a picture with a row for each episode, time going to the right.

    Args:
        data: What is read.
        numbers: Of the episodes; frames that cannot be read stay white.
        named: Writes a number for people.
        notes: What is suspicious about an episode, for its line.
        path: Of the PNG.
    """
    rows = []
    for number in numbers:
        length = int(data.lengths[number])
        steps = _steps(length, ACROSS)
        images: list[np.ndarray | None] = [*_images(data, number, steps, SIDE), *[None] * (ACROSS - len(steps))]
        shown = f"episode {named(number)}: steps {', '.join(map(str, steps))} of {length}"
        note = f"   ({notes[number]})" if number in notes else ""
        rows += [
            captioned(tile([images], SIDE), shown + note),
            np.full((GAP, ACROSS * (SIDE + GAP) - GAP, 3), 255, np.uint8),
        ]
    write_png(path, np.concatenate(rows[:-1]))


def draw_video(data: Trajectories, numbers: Sequence[int], named: Callable[[int], str], path: Path) -> None:
    """Write a video in which these episodes play side by side, each once, however long it is; the last frame stays."""
    lengths = [int(data.lengths[number]) for number in numbers]
    every = max(1, -(-max(lengths) // VIDEO_FRAMES))
    columns = []
    for number, length in zip(numbers, lengths, strict=True):
        steps = list(range(0, length, every))
        images = [
            captioned(tile([[image]], VIDEO_SIDE), named(number)) for image in _images(data, number, steps, VIDEO_SIDE)
        ]
        columns.append(images + images[-1:] * (-(-max(lengths) // every) - len(images)))
    gap = np.full((columns[0][0].shape[0], GAP, 3), 255, np.uint8)
    frames = []
    for images in zip(*columns, strict=True):
        apart = [piece for image in images for piece in (image, gap)]
        frames.append(np.concatenate(apart[:-1], axis=1))
    write_mp4(path, frames, FPS)


def _images(data: Trajectories, number: int, steps: Sequence[int], side: int) -> list[np.ndarray | None]:
    """Frames as they are shown; None for those that cannot be read."""
    try:
        frames = to_uint8(data.frames(number, steps))
    except _UNREADABLE:
        return [None] * len(steps)
    return [_shrunk(frame, side) for frame in frames]


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    if image.shape[0] <= side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))
