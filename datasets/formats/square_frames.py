"""Frames of any size as the square ones that models see."""

from __future__ import annotations

from torch import Tensor
from torchvision.transforms.v2 import functional


def fitted(frames: Tensor, size: int) -> Tensor:
    """Cut the largest square out of the middle of frames (k, 3, H, W) and resize it to (k, 3, size, size).

    Bilinear, with antialiasing where it shrinks; frames of that size are returned as they are.
    """
    height, width = frames.shape[2:]
    side = min(height, width)
    if (height, width) != (side, side):
        frames = functional.center_crop(frames, [side, side])
    if side != size:
        frames = functional.resize(frames, [size, size], antialias=True)
    return frames.clamp(0, 255)
