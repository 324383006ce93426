"""Images and videos for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from utils.files import write_file
from utils.retry import Retry

GAP = 4  # pixels of white between tiles
SIDE = 224  # tiles are enlarged to about this
HEADER = 18  # height of a line of titles


def to_uint8(images: Tensor) -> np.ndarray:
    """Turn images (..., 3, H, W) in 0..255, of any dtype, into uint8 (..., H, W, 3)."""
    return images.detach().cpu().float().round().clamp(0, 255).to(torch.uint8).movedim(-3, -1).numpy()


def enlarge(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Scale a uint8 (H, W, 3) image up to ``side`` without smoothing, so that its pixels stay visible."""
    if image.shape[0] >= side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))


def tile(
    rows: Sequence[Sequence[np.ndarray | None]], side: int = SIDE, titles: Sequence[str] | None = None
) -> np.ndarray:
    """Arrange uint8 images in rows; None leaves a place white. ``titles`` stand above the columns."""
    columns = max(len(row) for row in rows)
    step = side + GAP
    sheet = np.full((len(rows) * step - GAP, columns * step - GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            if image is not None:
                sheet[i * step : i * step + side, j * step : j * step + side] = enlarge(image, side)
    return sheet if titles is None else np.concatenate([_header(titles, step, sheet.shape[1]), sheet])


def _header(titles: Sequence[str], step: int, width: int) -> np.ndarray:
    strip = Image.new("RGB", (width, HEADER), "white")
    for column, title in enumerate(titles):
        ImageDraw.Draw(strip).text((column * step + GAP, GAP), title, fill="black")
    return np.asarray(strip)


def captioned(image: np.ndarray, caption: str) -> np.ndarray:
    """Put a line of text above a uint8 (H, W, 3) image."""
    return np.concatenate([_header([caption], 0, image.shape[1]), image])


def write_png(path: Path, image: np.ndarray, retry: Retry | None = None) -> None:
    """Write a uint8 (H, W, 3) image atomically; ``retry``: see ``write_file``."""
    write_file(path, lambda temporary: Image.fromarray(image).save(temporary, format="png"), retry)


def write_mp4(path: Path, frames: Sequence[np.ndarray], fps: int = 4, retry: Retry | None = None) -> None:
    """Write uint8 (H, W, 3) frames as H.264, atomically; sides are padded with white to even numbers."""
    write_file(path, lambda temporary: _encode(temporary, frames, fps), retry)


def _encode(path: Path, frames: Sequence[np.ndarray], fps: int) -> None:
    height, width = (size + size % 2 for size in frames[0].shape[:2])
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # Equal frames give equal files only with one thread, and without macroblock-tree rate control: its vector code
        # lets the content of fresh memory into the bit rate (about one first video of a process in two).
        stream.options = {"crf": "18", "x264-params": "mbtree=0"}
        stream.codec_context.thread_count = 1
        for frame in frames:
            padded = np.full((height, width, 3), 255, np.uint8)
            padded[: frame.shape[0], : frame.shape[1]] = frame
            container.mux(stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        container.mux(stream.encode())
