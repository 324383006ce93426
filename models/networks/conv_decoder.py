"""A decoder small enough to train in minutes on a CPU."""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.interfaces import Decoder
from utils.ranges import Width


class ConvDecoder(Decoder):
    """Double a square grid of tokens with transposed convolutions, then resize to the image.

    A 4 x 4 grid of 32-wide tokens becomes a 65-pixel image with 8 million multiply-adds. What all pictures have in
    common is a learned image of its own, added last: without it the convolutions spend their capacity on the
    background and never come to draw a small object (on the Wall the error is four times as large).

    Args:
        emb_dim: D, width of a token.
        num_patches: P, a square number.
        img_size: Side of the decoded images.
        width: Channels after the first doubling; each further doubling halves them, down to 8.

    Raises:
        ValueError: If ``num_patches`` is not a square number.
    """

    calibrates = True

    def __init__(self, emb_dim: int, num_patches: int, img_size: int, width: Width = 64) -> None:
        super().__init__()
        self.img_size = img_size
        self.side = isqrt(num_patches)
        if self.side**2 != num_patches:
            raise ValueError(f"decoder conv needs a square number of patches, the encoder has {num_patches}")
        layers: list[nn.Module] = []
        channel, side, out = emb_dim, self.side, width
        while 2 * side < img_size or not layers:
            layers += [nn.ConvTranspose2d(channel, out, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
            channel, side, out = out, 2 * side, max(out // 2, 8)
        last = nn.Conv2d(channel, 3, 3, padding=1)
        self.layers = nn.Sequential(*layers, last)
        self.background = nn.Parameter(torch.ones(3, img_size, img_size))

    @torch.no_grad()
    def calibrate(self, frames: Tensor) -> None:
        """Begin with the mean of ``frames`` (n, 3, S, S), 0..255, as background."""
        self.background.copy_(frames.float().mean(0) / 127.5 - 1)

    def forward(self, visual: Tensor) -> Tensor:
        """Patch features (..., P, D) -> images (..., 3, img_size, img_size) in [-1, 1] scale."""
        grid = visual.flatten(0, -3).transpose(1, 2).unflatten(2, (self.side, self.side))
        image = F.interpolate(self.layers(grid), (self.img_size, self.img_size), mode="bilinear", align_corners=False)
        return (image + self.background).unflatten(0, visual.shape[:-2])
