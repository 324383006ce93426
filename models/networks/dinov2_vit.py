"""The DINOv2 vision transformer, with the tensor names of the official weights."""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-6
PRETRAINED_GRID = 37  # the official weights come with positions for 518-pixel images
POSITION_OFFSET = 0.1


class PatchEmbed(nn.Module):
    """Cut an image into patches and embed each linearly."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Map (n, 3, H, W) to (n, h * w, dim), row-major."""
        return self.proj(images).flatten(2).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, t, dim) to (n, t, dim)."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with exact GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, t, dim) to (n, t, dim)."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, t, dim) to (n, t, dim)."""
        return tokens * self.gamma


class Block(nn.Module):
    """Pre-norm residual block with layer scale."""

    def __init__(self, dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = SelfAttention(dim, num_heads)
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, hidden)
        self.ls2 = LayerScale(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (n, t, dim) to (n, t, dim)."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


class DinoVisionTransformer(nn.Module):
    """Images to normalised patch features.

    Args:
        embed_dim: D.
        depth: Number of blocks.
        num_heads: Heads of the attention; divides D.
        patch_size: Side of a patch, pixels.
        mlp_ratio: Hidden width of the MLPs over D.
        position_offset: Added to the size of a grid before the learned positions are resized to it; 0 is the plain
            ratio of the sizes, which Hugging Face's transformers use.

    Source: Oquab et al., DINOv2, arXiv 2304.07193; the variant without register tokens.
    """

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int,
        mlp_ratio: float,
        position_offset: float = POSITION_OFFSET,
    ) -> None:
        super().__init__()
        self.patch_size, self.position_offset = patch_size, position_offset
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + PRETRAINED_GRID**2, embed_dim))
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))  # of the pretraining; unused, but in every file
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, int(embed_dim * mlp_ratio)) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)

    def positions(self, height: int, width: int) -> Tensor:
        """Return the positional embedding (1, 1 + height * width, D) of the class token and a grid of patches.

        The scale factor carries an offset of 0.1, as in the official model: the released predictors were trained on
        those features, and the plain size ratio shifts them by more than the predictors' own error.
        """
        side = isqrt(self.pos_embed.shape[1] - 1)
        if (height, width) == (side, side):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        factors = tuple((length + self.position_offset) / side for length in (height, width))
        how = {"scale_factor": factors} if self.position_offset else {"size": (height, width)}
        resized = F.interpolate(grid, mode="bicubic", antialias=False, **how)
        patches = resized.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat([self.pos_embed[:, :1], patches], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (n, 3, H, W), sides multiples of the patch size -> patch features (n, P, D)."""
        height, width = (side // self.patch_size for side in images.shape[-2:])
        patches = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        tokens = tokens + self.positions(height, width)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 1:])
