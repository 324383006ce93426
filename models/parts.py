"""What the world model expects of its replaceable parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """From what is observed of a frame to its patch features.

    Attributes:
        emb_dim: D. num_patches: P.
        observes: "visual" (images) or "state" (z-scored simulator states).
        saved_with_model: whether its tensors belong into a checkpoint although it is frozen.
        weights_sha256: of the file its weights came from; None if there was none.
    """

    emb_dim: int
    num_patches: int
    observes: str = "visual"
    saved_with_model: bool = True
    weights_sha256: str | None = None

    @torch.no_grad()
    def calibrate(self, frames: Tensor) -> None:
        """Look at frames (n, 3, S, S) of the training data once, before a training from scratch; may do nothing."""


class Predictor(nn.Module):
    """From the tokens of some frames (B, F * P', D') to those one model step later, causal over frames.

    Attributes:
        activations_per_token: floats that a forward pass keeps for the backward pass, per token; an estimate.
    """

    activations_per_token: int


class Decoder(nn.Module):
    """From patch features (..., P, D) to images (..., 3, S, S) in [-1, 1].

    Attributes:
        img_size: S. calibrates: whether ``calibrate`` does anything.
    """

    img_size: int
    calibrates = False

    def calibrate(self, frames: Tensor) -> None:
        """Look at frames (n, 3, S, S) of the training data once, before a training from scratch."""
