"""Sources of the frames of a sample."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from datasets.trajectories import Trajectories


class FrameSource(Protocol):
    """Delivers what stands for the frames of a batch: images, or latents encoded beforehand.

    Attributes:
        field: The field of ``Batch`` that it fills.
    """

    field: Literal["visual", "latents"]

    def read(self, trajectory: Tensor, step: Tensor) -> Tensor | None:
        """Frames at (trajectory, raw step), two (B, F) int64 tensors: (B, F, ...), or None for no frames at all."""


class ImageFrames:
    """Images straight from the recorded episodes: one file is opened per sample, only its F frames are read."""

    field: Literal["visual", "latents"] = "visual"

    def __init__(self, trajectories: Trajectories) -> None:
        self.trajectories = trajectories

    def read(self, trajectory: Tensor, step: Tensor) -> Tensor:
        """Images (B, F, 3, H, W), uint8 or float32, 0..255."""
        rows = zip(trajectory[:, 0].tolist(), step.tolist(), strict=True)
        return torch.stack([self.trajectories.frames(number, steps) for number, steps in rows])


class NoFrames:
    """Frames of nothing, for models that read the proprio values alone."""

    field: Literal["visual", "latents"] = "visual"

    def read(self, trajectory: Tensor, step: Tensor) -> None:
        """Return None: there are no frames."""
