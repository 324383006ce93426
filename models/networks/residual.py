"""Predictors that add a learned change to the current tokens: small models that train in minutes."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from models.interfaces import KVCache, Predictor
from models.networks.vit import ViTPredictor, last_tokens
from utils.ranges import DropoutRate, EmbeddingSize, Small, Width


class ResidualViT(Predictor):
    """A narrow block-causal ViT that predicts the change of each token.

    Deviation from DINO-WM's predictor: tokens pass a linear map to ``width`` first, and the output is
    ``z + head(LN(ViT(z)))`` with ``head`` started at zero, so an untrained model predicts "nothing moves". At this
    size that start is worth most of the training time.
    """

    def __init__(
        self,
        num_patches: int,
        num_frames: int,
        dim: int,
        width: Width = 64,
        depth: Small = 2,
        heads: Small = 4,
        dim_head: EmbeddingSize = 16,
        mlp_dim: Width = 128,
        dropout: DropoutRate = 0.0,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.vit = ViTPredictor(num_patches, num_frames, width, depth, heads, mlp_dim, dim_head, dropout)
        self.head = nn.Linear(width, dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.activations_per_token = self.vit.activations_per_token + 2 * dim

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, F * P, dim) to (B, F * P, dim), each frame's tokens one model step later."""
        return self.extend(tokens, keep=False)[0]

    def extend(
        self, tokens: Tensor, cache: KVCache = (), wanted: int | None = None, keep: bool = True
    ) -> tuple[Tensor, KVCache]:
        """See the base class; the cache is the ViT's."""
        predicted, cache = self.vit.extend(self.embed(tokens), cache, wanted, keep)
        return last_tokens(tokens, predicted.shape[1]) + self.head(predicted), cache


class ResidualMLP(Predictor):
    """Three hidden layers on the tokens of one frame, which are concatenated; sees the last frame only."""

    def __init__(self, num_patches: int, num_frames: int, dim: int, width: Width = 256, depth: Small = 3) -> None:
        super().__init__()
        if num_frames != 1:
            raise ValueError(f"predictor=mlp sees one frame of history: num_hist must be 1, got {num_frames}")
        self.num_patches = num_patches
        sizes = [num_patches * dim] + [width] * depth
        hidden = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.GELU())]
        head = nn.Linear(width, num_patches * dim)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.net = nn.Sequential(*hidden, head)
        self.activations_per_token = 2 * width * depth // num_patches + 2 * dim

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, P, dim) to (B, P, dim), the frame one model step later."""
        change = self.net(tokens.flatten(1))
        return tokens + torch.unflatten(change, 1, (self.num_patches, -1))
