"""Small learned maps on top of an encoder: fewer or narrower tokens, in a space made for planning.

Source: "Temporal Straightening for Latent Planning", arXiv 2603.12231; the defaults are its sizes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor, nn

from models.interfaces import Projector
from utils.ranges import EmbeddingSize, Small, Width

GROUPS = 8  # of GroupNorm
Grid = Sequence[int]
Kernel = Annotated[int, Interval(ge=1, le=15)]


class ChannelProjector(Projector):
    """Keep the grid of patches, and map each patch with its neighbours to a few features.

    ``depth`` convolutions, each followed by LayerNorm over the channels; ReLU between them.

    Args:
        in_dim: D of the encoder.
        grid: (h, w) of its patches; None: they form none.
        hidden: Channels between two convolutions.
        emb_dim: D of the result.
        kernel: Side of a convolution, patches; odd.
        depth: Convolutions.

    Raises:
        ValueError: If the patches form no grid, or ``kernel`` is even.
    """

    def __init__(
        self,
        in_dim: int,
        grid: Grid | None,
        hidden: Width = 192,
        emb_dim: EmbeddingSize = 8,
        kernel: Kernel = 3,
        depth: Small = 2,
    ) -> None:
        super().__init__()
        self.grid = _required(grid, "channel")
        _refuse_even(kernel)
        self.emb_dim, self.num_patches = emb_dim, self.grid[0] * self.grid[1]
        widths = [in_dim, *[hidden] * (depth - 1), emb_dim]
        pairs = itertools.pairwise(widths)
        self.convolutions = nn.ModuleList(nn.Conv2d(*pair, kernel, padding=kernel // 2) for pair in pairs)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[1:])

    def forward(self, features: Tensor) -> Tensor:
        """Map (..., P, D) to (..., P, emb_dim)."""
        x = _as_image(features, self.grid)
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = convolution(F.relu(x) if number else x)
            x = norm(x.movedim(1, -1)).movedim(-1, 1)
        return x.flatten(2).transpose(1, 2).unflatten(0, features.shape[:-2])


class GlobalProjector(Projector):
    """Map the grid of patches to one token.

    A 1 x 1 convolution, ``depth`` convolutions of stride 2, each followed by GroupNorm and GELU; the mean over places,
    a linear map, LayerNorm.

    Args:
        in_dim: D of the encoder.
        grid: (h, w) of its patches; None: they form none.
        hidden: Channels of the convolutions, a multiple of 8 from 16 on.
        emb_dim: D of the token.
        kernel: Side of a convolution with stride, patches; odd.
        depth: Convolutions with stride.

    Raises:
        ValueError: If the patches form no grid, ``kernel`` is even, or ``hidden`` cannot be grouped.
    """

    num_patches = 1

    def __init__(
        self,
        in_dim: int,
        grid: Grid | None,
        hidden: Width = 384,
        emb_dim: EmbeddingSize = 384,
        kernel: Kernel = 3,
        depth: Small = 3,
    ) -> None:
        super().__init__()
        self.grid, self.emb_dim = _required(grid, "global"), emb_dim
        _refuse_even(kernel)
        if hidden % GROUPS or hidden < 2 * GROUPS:  # where one place is left, a group of one channel would vanish
            raise ValueError(
                f"projector.hidden must be a multiple of {GROUPS} (groups of GroupNorm) and at least {2 * GROUPS}, got "
                f"{hidden}"
            )
        strided = [nn.Conv2d(hidden, hidden, kernel, stride=2, padding=kernel // 2) for _ in range(depth)]
        convolutions = [nn.Conv2d(in_dim, hidden, 1), *strided]
        self.layers = nn.Sequential(
            *(layer for each in convolutions for layer in (each, nn.GroupNorm(GROUPS, hidden), nn.GELU()))
        )
        self.head, self.norm = nn.Linear(hidden, emb_dim), nn.LayerNorm(emb_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Map (..., P, D) to (..., 1, emb_dim)."""
        pooled = self.layers(_as_image(features, self.grid)).mean((2, 3))
        return self.norm(self.head(pooled)).unflatten(0, features.shape[:-2])[..., None, :]


def _as_image(features: Tensor, grid: Grid) -> Tensor:
    """(..., P, D) -> (n, D, h, w)."""
    return features.flatten(0, -3).transpose(1, 2).unflatten(2, grid)


def _required(grid: Grid | None, option: str) -> Grid:
    if grid is None:
        raise ValueError(
            f"projector={option} needs an encoder whose features form a grid of patches (encoder=dino, resnet or "
            "small), and this one's do not; use projector=none"
        )
    return grid


def _refuse_even(kernel: int) -> None:
    if not kernel % 2:
        raise ValueError(f"projector.kernel must be odd, got {kernel}")
