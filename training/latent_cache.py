"""Every frame of some trajectories, encoded once and kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.trajectories import Trajectories
from models.world_model import WorldModel

FRAMES_PER_CALL = 256


class LatentFrames:
    """A ``FrameSource`` that answers from memory; for frozen encoders only.

    Args:
        model: its encoder is used, on its device; the features stay on the CPU.
        trajectories: where the images come from. numbers: which of them.
    """

    field: Literal["visual", "latents"] = "latents"

    @torch.no_grad()
    def __init__(self, model: WorldModel, trajectories: Trajectories, numbers: Sequence[int]) -> None:
        encoder, device = model.encoder.eval(), next(model.parameters()).device
        lengths = trajectories.lengths[torch.as_tensor(numbers)]
        total = int(lengths.sum())
        self._first = torch.zeros(len(trajectories.lengths), dtype=torch.long)
        self._first[torch.as_tensor(numbers)] = lengths.cumsum(0) - lengths
        self.features = torch.empty(total, encoder.num_patches, encoder.emb_dim)  # (frames, P, D)
        row = 0
        size = f"{self.features.numel() * 4 / 2**30:.2f} GiB"
        for number in tqdm(numbers, desc=f"encode {total} frames ({size})", unit="trajectory", leave=False):
            for start in range(0, int(trajectories.lengths[number]), FRAMES_PER_CALL):
                steps = range(start, min(start + FRAMES_PER_CALL, int(trajectories.lengths[number])))
                frames = trajectories.frames(number, steps).to(device)
                self.features[row : row + len(steps)] = encoder(frames).cpu()
                row += len(steps)

    def read(self, trajectory: Tensor, step: Tensor) -> Tensor:
        """Features (B, F, P, D) at (trajectory, raw step), two (B, F) tensors."""
        return self.features[self._first[trajectory] + step]
