"""A small residual convolutional encoder whose weights are trained together with the dynamics."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.interfaces import Encoder
from utils.ranges import EmbeddingSize, Small, Width

STRIDE = 16  # pixels between two patches: 4 of the stem, then twice 2
STEM = (8, 4, 2)  # kernel, stride, padding; overlapping, so that a dot moves smoothly through it
STAGES = 3


class ResidualBlock(nn.Module):
    """``x + conv(relu(norm(conv(relu(norm(x))))))``, with a strided 1 x 1 convolution as a shortcut where sizes change.

    Source: He et al. 2016, "Identity mappings in deep residual networks", arXiv 1603.05027, figure 4e.
    Deviation: GroupNorm (Wu & He 2018, arXiv 1803.08494) instead of batch normalisation, so that the features of a
    frame never depend on the frames beside it, neither in training nor in planning.

    Args:
        inside: Channels of the input, a multiple of 8.
        outside: Channels of the output, a multiple of 8.
        stride: 1 or 2.
    """

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.GroupNorm(inside // 8, inside), nn.GroupNorm(outside // 8, outside)
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        same = inside == outside and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inside, h, w) to (n, outside, ceil(h / stride), ceil(w / stride))."""
        active = F.relu(self.first_norm(x))
        return self.shortcut(x) + self.second(F.relu(self.second_norm(self.first(active))))


class ResNetEncoder(Encoder):
    """Patches of 16 pixels through three stages of residual blocks; wants ``model.train_encoder=true``.

    Two coordinate channels stand beside the three colours (Liu et al. 2018, CoordConv, arXiv 1807.03247). With 65
    pixels nearly every patch sees the whole picture, so that a patch can tell how far away a thing is: a planner
    needs latent distances that go on growing with distances in the world.

    Args:
        img_size: S, side of the images, pixels; at least 16.
        width: Channels of the first stage, a multiple of 8; the later ones have two and four times as many.
        depth: Residual blocks per stage.
        emb_dim: D, features of a token.
        pool: Whether a frame is one token, the mean over its patches.
        layer_norm: Whether the features of a token pass a LayerNorm last. Then their scale cannot shrink, which is
            half of what a regulariser of the variance is for.

    Attributes:
        num_patches: (S // 16) ** 2, so 16 at 64 and 65 pixels, 196 at 224; 1 with ``pool``.
        observes: "visual", i.e. it wants images.

    Raises:
        ValueError: If a size is not supported.
    """

    coordinates: Tensor

    def __init__(
        self,
        img_size: int = 65,
        width: Width = 16,
        depth: Small = 1,
        emb_dim: EmbeddingSize = 32,
        pool: bool = False,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        if img_size < STRIDE:
            raise ValueError(f"img_size must be at least {STRIDE} with encoder=resnet, got {img_size}")
        if width < 8 or width % 8:
            raise ValueError(f"encoder.width must be a positive multiple of 8 (groups of GroupNorm), got {width}")
        if depth < 1 or emb_dim < 1:
            raise ValueError(f"encoder.depth and encoder.emb_dim must be at least 1, got {depth} and {emb_dim}")
        self.img_size, self.emb_dim, self.pool = img_size, emb_dim, pool
        self.side = img_size // STRIDE
        self.grid = (1, 1) if pool else (self.side, self.side)
        self.num_patches = math.prod(self.grid)
        line = torch.linspace(-1, 1, img_size)
        coordinates = torch.stack(torch.meshgrid(line, line, indexing="xy"))
        self.register_buffer("coordinates", coordinates, persistent=False)  # (2, S, S); these follow from the size
        self.stem = nn.Conv2d(5, width, *STEM)
        widths = [width] + [width * 2**stage for stage in range(STAGES)]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(widths[stage + (block > 0)], widths[stage + 1], 2 if stage and not block else 1)
                for stage in range(STAGES)
                for block in range(depth)
            )
        )
        self.norm = nn.GroupNorm(widths[-1] // 8, widths[-1])
        self.head = nn.Conv2d(widths[-1], emb_dim, 1)
        self.last_norm = nn.LayerNorm(emb_dim) if layer_norm else nn.Identity()

    def forward(self, visual: Tensor) -> Tensor:
        """Images (..., 3, S, S), uint8 or float in 0..255 -> features (..., P, emb_dim), row by row.

        Raises:
            ValueError: If the images have another side than the encoder was built for.
        """
        self.refuse_other_sides(visual, self.img_size, "resnet")
        leading = visual.shape[:-3]
        image = visual.reshape(-1, *visual.shape[-3:]).to(self.coordinates.dtype) / 127.5 - 1
        shown = torch.cat([image, self.coordinates.expand(len(image), -1, -1, -1)], 1)
        features = self.head(F.relu(self.norm(self.blocks(self.stem(shown)))))
        features = features[..., : self.side, : self.side].flatten(2).transpose(1, 2)
        features = self.last_norm(features.mean(1, keepdim=True) if self.pool else features)
        return features.reshape(*leading, self.num_patches, self.emb_dim)
