"""DINO-WM's decoder: patch features back to images, to look at what the model imagines."""

from __future__ import annotations

import itertools
from collections.abc import MutableMapping
from math import isqrt
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from models.interfaces import Decoder
from utils.ranges import SmallOrZero, Width

UPSAMPLING = 16  # two stages of two stride-2 convolutions


class ResBlock(nn.Module):
    """Add a 3 x 3 and a 1 x 1 convolution of the rectified input to the input."""

    def __init__(self, channel: int, hidden: int) -> None:
        super().__init__()
        # The first ReLU is out of place: the skip connection must carry the un-rectified input.
        self.conv = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channel, hidden, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(hidden, channel, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(n, channel, h, w) -> (n, channel, h, w)."""
        return image + self.conv(image)


class UpsamplingStage(nn.Module):
    """Residual blocks, then two stride-2 transposed convolutions: four times the side."""

    def __init__(self, in_channel: int, out_channel: int, channel: int, n_res_block: int, n_res_channel: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(in_channel, channel, 3, padding=1),
            *(ResBlock(channel, n_res_channel) for _ in range(n_res_block)),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(channel, channel // 2, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(channel // 2, out_channel, 4, stride=2, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(n, in_channel, h, w) -> (n, out_channel, 4 h, 4 w)."""
        return self.blocks(image)


class VQVAE(Decoder):
    """Decode a square grid of patch features into an image sixteen times its side.

    Tensor names are those of released DINO-WM checkpoints; the ``quantize_b`` buffers in them are unused and dropped.

    Args:
        channel: Width of the convolutions.
        n_res_block: Residual blocks per stage.
        n_res_channel: Width of the residual blocks.
        n_embed: Size of the codebook; released configs name it, without quantisation it has no effect.
        quantize: Only False.
        emb_dim: D, width of the patch features.
        num_patches: P, a square number.
        widths: Channels after each of the transposed convolutions that come first, which bring features that a
            projector has narrowed back to the encoder's width; None: there are none.

    Attributes:
        img_size: Side of the decoded images.

    Raises:
        ValueError: If ``quantize`` is true or ``num_patches`` is not a square number.

    Source: Zhou et al., DINO-WM, arXiv 2411.04983; the layers are those of Razavi et al., VQ-VAE-2, arXiv 1906.00446.
    """

    def __init__(
        self,
        channel: Width = 384,
        n_embed: Width = 2048,
        n_res_block: SmallOrZero = 4,
        n_res_channel: Width = 128,
        quantize: bool = False,
        emb_dim: int = 384,
        num_patches: int = 196,
        widths: list[Width] | None = None,
    ) -> None:
        super().__init__()
        if quantize:
            raise ValueError("decoder.quantize must be false, got true: no DINO-WM checkpoint quantises its features")
        self.side = isqrt(num_patches)
        if self.side**2 != num_patches:
            raise ValueError(f"decoder vqvae needs a square number of patches, the encoder has {num_patches}")
        self.img_size = UPSAMPLING * self.side
        pairs = itertools.pairwise([emb_dim, *(widths or [])])
        self.widening = nn.ModuleList(nn.ConvTranspose2d(*pair, 3, padding=1) for pair in pairs)
        emb_dim = widths[-1] if widths else emb_dim
        self.upsample_b = UpsamplingStage(emb_dim, emb_dim, channel, n_res_block, n_res_channel)
        self.dec = UpsamplingStage(emb_dim, 3, channel, n_res_block, n_res_channel)

    def forward(self, visual: Tensor) -> Tensor:
        """Patch features (..., P, D) -> images (..., 3, img_size, img_size) in [-1, 1] scale."""
        grid = visual.flatten(0, -3).transpose(1, 2).unflatten(2, (self.side, self.side))
        for number, layer in enumerate(self.widening):
            grid = layer(F.relu(grid) if number else grid)
        return self.dec(self.upsample_b(grid)).unflatten(0, visual.shape[:-2])

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Any], prefix: str, *args: Any) -> None:
        for name in [name for name in state_dict if name.startswith(prefix + "quantize_b.")]:
            del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *args)
