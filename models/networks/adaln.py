"""A predictor whose action sets shift, scale and gate of every layer, instead of being a part of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.interfaces import KVCache, Predictor
from utils.ranges import EmbeddingSize, NormEps, Small

BASE = 10_000.0  # of the angles' frequencies


def rotation(positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (n, width) for tokens at integer places (n, 3): frame, row, column.

    Each of the three gets an equal, even number of channels; what is left is not rotated.

    Deviation from rotary embeddings: the frequencies stand one after the other and again, [f0 ... fk, f0 ... fk], while
    ``rotated`` pairs neighbouring channels, so that the two of a pair turn by different angles. The published weights
    were trained so.
    """
    channels = 2 * (width // 3 // 2)
    order = torch.arange(channels // 2, device=positions.device, dtype=torch.float32)
    frequencies = BASE ** (-order / max(1, channels // 2))
    angles = (positions[..., None].float() * frequencies).repeat(1, 1, 2).flatten(1)  # (n, 3 * channels)
    angles = F.pad(angles, (0, width - angles.shape[1]))
    return angles.cos(), angles.sin()


def rotated(values: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn neighbouring channels of ``values`` (..., n, width) by the angles of ``rotation``."""
    even, odd = values[..., : values.shape[-1] // 2 * 2].unflatten(-1, (-1, 2)).unbind(-1)
    turned = F.pad(torch.stack([-odd, even], -1).flatten(-2), (0, values.shape[-1] % 2))
    return values * cosine.to(values.dtype) + turned * sine.to(values.dtype)


class RotaryAttention(nn.Module):
    """Multi-head self-attention in which a token sees all tokens of its own and of earlier frames, by their places."""

    def __init__(self, dim: int, heads: int, tokens_per_frame: int) -> None:
        super().__init__()
        self.heads, self.tokens_per_frame = heads, tokens_per_frame
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, places: Tensor, past: KVCache, wanted: int) -> tuple[Tensor, KVCache]:
        """Attend from the last ``wanted`` tokens of (B, n, dim), at ``places`` (n, 3), to all; as ``vit.Attention``."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        cosine, sine = rotation(places, query.shape[-1])
        query, key = rotated(query, cosine, sine), rotated(key, cosine, sine)
        if past:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        query, size = query[:, :, query.shape[2] - wanted :], self.tokens_per_frame
        ends = range(key.shape[2] - wanted + size, key.shape[2] + 1, size)
        frames = zip(query.split(size, 2), ends, strict=True)
        attended = [F.scaled_dot_product_attention(part, key[:, :, :end], value[:, :, :end]) for part, end in frames]
        return self.proj(torch.cat(attended, 2).transpose(1, 2).flatten(2)), (key, value)


class Block(nn.Module):
    """Attention and MLP with residuals; a frame's action sets shift, scale and gate of both."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, tokens_per_frame: int, norm_eps: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=norm_eps) for _ in range(2))
        self.attn = RotaryAttention(dim, heads, tokens_per_frame)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        nn.init.zeros_(cast(nn.Linear, self.modulation[1]).weight)  # a new block changes nothing
        nn.init.zeros_(cast(nn.Linear, self.modulation[1]).bias)

    def forward(
        self, tokens: Tensor, action: Tensor, places: Tensor, past: KVCache, wanted: int
    ) -> tuple[Tensor, KVCache]:
        """Map tokens (B, F * P, dim) under embedded actions (B, F, dim) to those of the last ``wanted``."""
        each = self.modulation(action).repeat_interleave(self.attn.tokens_per_frame, 1).chunk(6, -1)
        change, seen = self.attn(self.norm1(tokens) * (1 + each[1]) + each[0], places, past, wanted)
        tokens, first = tokens[:, tokens.shape[1] - wanted :], tokens.shape[1] - wanted
        _, _, gate1, shift2, scale2, gate2 = (part[:, first:] for part in each)
        tokens = tokens + gate1 * change
        return tokens + gate2 * self.mlp(self.norm2(tokens) * (1 + scale2) + shift2), seen


class AdaLNPredictor(Predictor):
    """Predict the tokens one model step after each of up to ``num_frames`` frames; places are rotary, never learned.

    A layer's tokens are [visual, through a linear map | proprio], and as wide as the action's embedding. The action
    part of what is returned is that of the input.

    Args:
        num_patches: P, tokens per frame.
        num_frames: Most frames seen at once (``num_hist``).
        dim: Token width.
        visual_dim: D.
        proprio_dim: Width of the proprio part of a token.
        grid: (h, w) of the patches; None: they form none.
        embed_dim: Width of the visual part in a layer.
        depth: Number of blocks.
        heads: Heads of the attention; divides ``embed_dim + proprio_dim``.
        mlp_ratio: Hidden width of the MLPs over that of a token.
        norm_eps: What every LayerNorm adds to the variance.

    Raises:
        ValueError: If the widths do not fit together, or the patches form no grid.

    Source: "What Drives Success in Physical Planning with Joint-Embedding Predictive World Models?", arXiv 2512.24497;
    AdaLN: Peebles and Xie, arXiv 2212.09748; rotary places: Su et al., arXiv 2104.09864.
    """

    def __init__(
        self,
        num_patches: int,
        num_frames: int,
        dim: int,
        visual_dim: int,
        proprio_dim: int,
        grid: Sequence[int] | None,
        embed_dim: EmbeddingSize = 384,
        depth: Small = 6,
        heads: Small = 16,
        mlp_ratio: Small = 4,
        norm_eps: NormEps = 1e-6,
    ) -> None:
        super().__init__()
        width = embed_dim + proprio_dim
        if dim != visual_dim + proprio_dim + width:
            raise ValueError(
                f"predictor=adaln needs concat_dim=1 and action_emb_dim={width}, predictor.embed_dim and the proprio "
                f"embedding together; tokens are {dim} wide"
            )
        if grid is None or width % heads:
            reason = f"predictor.heads={heads} must divide {width}" if grid else "the encoder's patches form no grid"
            raise ValueError(f"predictor=adaln: {reason}")
        self.num_patches, self.num_frames, self.grid = num_patches, num_frames, tuple(grid)
        self.sizes, self.embed_dim = (visual_dim, proprio_dim, width), embed_dim
        self.embed = nn.Linear(visual_dim, embed_dim)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, num_patches, norm_eps) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.head = nn.Linear(embed_dim, visual_dim)
        self.activations_per_token = depth * (14 + 3 * mlp_ratio) * width + 2 * dim

    def forward(self, tokens: Tensor) -> Tensor:
        """Map frame-major tokens (B, F * P, dim) to (B, F * P, dim), each frame's tokens one model step later."""
        return self.extend(tokens, keep=False)[0]

    def extend(
        self, tokens: Tensor, cache: KVCache = (), wanted: int | None = None, keep: bool = True
    ) -> tuple[Tensor, KVCache]:
        """See the base class. The cache holds keys and values at their places in the window.

        Raises:
            ValueError: If the tokens, with those in ``cache``, are not 1 to ``num_frames`` whole frames.
        """
        count, first = tokens.shape[1], cache[0].shape[2] if cache else 0
        if count % self.num_patches or not 0 < first + count <= self.num_frames * self.num_patches:
            raise ValueError(
                f"the predictor takes 1 to {self.num_frames} frames (num_hist) of {self.num_patches} tokens, "
                f"got {first + count} tokens"
            )
        wanted = count if wanted is None else wanted
        visual, proprio, embedded = tokens.split(self.sizes, -1)
        states = torch.cat([self.embed(visual), proprio], -1)
        action = embedded[:, :: self.num_patches]  # of each frame: it is the same in all of its patches
        places, kept = self._places(first, count, tokens.device), list[Tensor]()
        for number, block in enumerate(self.blocks):
            here = wanted if number + 1 == len(self.blocks) else count
            states, seen = block(states, action, places, cache[2 * number : 2 * number + 2], here)
            kept += seen if keep else ()
        states = self.norm(states[:, states.shape[1] - wanted :])
        visual, proprio = states.split([self.embed_dim, self.sizes[1]], -1)
        return torch.cat([self.head(visual), proprio, embedded[:, count - wanted :]], -1), tuple(kept)

    def _places(self, first: int, count: int, device: torch.device) -> Tensor:
        """Frame, row and column (count, 3) of the tokens from number ``first`` on."""
        number = torch.arange(first, first + count, device=device)
        within = number % self.num_patches
        return torch.stack([number // self.num_patches, within // self.grid[1], within % self.grid[1]], -1)
