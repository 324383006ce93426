"""Latents: what the world model knows of some frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Latent:
    """Encoded frames.

    Attributes:
        visual: (B, T, P, D) patch features.
        proprio: (B, T, E) embedded proprioception; of a model that keeps it for every patch, (B, T, P * E).
    """

    visual: Tensor
    proprio: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Latent:
        """Apply ``function`` to both parts."""
        return Latent(function(self.visual), function(self.proprio))

    def __getitem__(self, index: object) -> Latent:
        """Index the leading dimensions (B, T) of both parts alike."""
        return self.map(lambda part: part[index])  # type: ignore[index]

    def detach(self) -> Latent:
        """Cut both parts from the graph."""
        return self.map(Tensor.detach)

    @property
    def batch_size(self) -> int:
        """Number of rows, B."""
        return self.visual.shape[0]

    @property
    def num_frames(self) -> int:
        """Number of frames, T."""
        return self.visual.shape[1]


def cat_latents(latents: Sequence[Latent], dim: int) -> Latent:
    """Concatenate along a leading dimension, 0 (batch) or 1 (time)."""
    return Latent(torch.cat([z.visual for z in latents], dim), torch.cat([z.proprio for z in latents], dim))
