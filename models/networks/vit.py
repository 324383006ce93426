"""DINO-WM's predictor: a transformer over the patch tokens of a few frames, causal from frame to frame."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.interfaces import KVCache, Predictor
from utils.ranges import DropoutRate, EmbeddingSize, NormEps, Small, Width

NORM_EPS = 1e-5  # torch's default, which DINO-WM's predictors were trained with


class Attention(nn.Module):
    """Multi-head self-attention in which a token sees all tokens of its own and of earlier frames."""

    def __init__(
        self, dim: int, heads: int, dim_head: int, dropout: float, tokens_per_frame: int, norm_eps: float = NORM_EPS
    ) -> None:
        super().__init__()
        self.heads = heads
        self.tokens_per_frame = tokens_per_frame
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim), nn.Dropout(dropout))

    def forward(self, tokens: Tensor, past: KVCache = (), wanted: int | None = None) -> tuple[Tensor, KVCache]:
        """Attend from the last tokens to all.

        Args:
            tokens: (B, F * P, dim) of the further frames.
            past: Keys and values (B, heads, m, d) of earlier frames, or nothing.
            wanted: How many of the last tokens are asked for, whole frames; None means all.

        Returns:
            (B, wanted, dim), and the keys and values of all frames.
        """
        joint = self.to_qkv(self.norm(tokens)).unflatten(-1, (3, self.heads, -1))
        query, key, value = joint.permute(2, 0, 3, 1, 4)  # (B, heads, F * P, d) each
        if past:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        attended = self.attend(query if wanted is None else query[:, :, -wanted:], key, value)
        return self.to_out(attended.transpose(1, 2).flatten(2)), (key, value)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Let the queries (B, heads, n, d) of the last frames see the keys and values of their own and earlier ones."""
        size, total = self.tokens_per_frame, key.shape[2]
        ends = range(total - query.shape[2] + size, total + 1, size)
        frames = zip(query.split(size, 2), ends, strict=True)
        return torch.cat([self.average(part, key[:, :, :end], value[:, :, :end]) for part, end in frames], dim=2)

    def average(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return softmax(Q K^T / sqrt(d)) V, with dropout on the weights."""
        dropout = self.dropout.p if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Any], prefix: str, *args: Any) -> None:
        """Drop the causal mask that released checkpoints carry as a (1, 1, n, n) buffer named ``bias``."""
        mask = state_dict.get(prefix + "bias")
        if mask is not None and mask.ndim == 4:
            del state_dict[prefix + "bias"]
        super()._load_from_state_dict(state_dict, prefix, *args)


class FeedForward(nn.Module):
    """LayerNorm and a two-layer MLP with exact GELU."""

    def __init__(self, dim: int, hidden: int, dropout: float, norm_eps: float = NORM_EPS) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(dim, eps=norm_eps),
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, n, dim) to (B, n, dim)."""
        return self.net(tokens)


class Transformer(nn.Module):
    """Pre-norm residual blocks and a last LayerNorm."""

    def __init__(self, depth: int, dim: int, mlp_dim: int, **attention: Any) -> None:
        super().__init__()
        dropout, norm_eps = attention["dropout"], attention.get("norm_eps", NORM_EPS)
        self.layers = nn.ModuleList(
            nn.ModuleList([Attention(dim, **attention), FeedForward(dim, mlp_dim, dropout, norm_eps)])
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=norm_eps)

    def forward(
        self, tokens: Tensor, cache: KVCache = (), wanted: int | None = None, keep: bool = False
    ) -> tuple[Tensor, KVCache]:
        """Map (B, F * P, dim) to (B, wanted, dim) of the last tokens, and the keys and values of each layer in turn.

        Earlier tokens take no part in the last layer beyond their keys and values. See ``Predictor.extend``.
        """
        kept: list[Tensor] = []
        wanted = tokens.shape[1] if wanted is None else wanted
        for number, layer in enumerate(self.layers):
            attention, mlp = cast(nn.ModuleList, layer)
            here = wanted if number + 1 == len(self.layers) else tokens.shape[1]
            change, seen = attention(tokens, cache[2 * number : 2 * number + 2], here)
            tokens = last_tokens(tokens, here) + change
            tokens = tokens + mlp(tokens)
            kept += seen if keep else ()
        return self.norm(last_tokens(tokens, wanted)), tuple(kept)


def last_tokens(tokens: Tensor, count: int) -> Tensor:
    """The last ``count`` of tokens (B, n, dim); all of them as they are, which autograd need not go through again."""
    return tokens if count == tokens.shape[1] else tokens[:, tokens.shape[1] - count :]


class ViTPredictor(Predictor):
    """Predict the tokens one model step after each of up to ``num_frames`` frames.

    Tensor names are those of released DINO-WM checkpoints, so their state loads as it is. Their mask is dropped, and
    of a checkpoint with a longer history the first positions are taken: a shorter history never uses the others.

    Args:
        num_patches: P, tokens per frame.
        num_frames: Most frames seen at once (``num_hist``).
        dim: Token width.
        depth: Number of blocks.
        heads: Heads of the attention.
        mlp_dim: Hidden width of the MLPs.
        dim_head: Width of a head.
        dropout: On attention weights, attention output and MLP, in training only.
        emb_dropout: On the embedded tokens, in training only.
        pool: Only "mean", which is what released configs say; a prediction per token pools nothing.
        norm_eps: What every LayerNorm adds to the variance; some programs' models were trained with 1e-6.

    Attributes:
        activations_per_token: Floats that one forward keeps for the backward, per token; for memory budgets.

    Source: Zhou et al., DINO-WM, arXiv 2411.04983, appendix A.
    """

    def __init__(
        self,
        num_patches: int,
        num_frames: int,
        dim: int,
        depth: Small,
        heads: Small,
        mlp_dim: Width,
        dim_head: EmbeddingSize = 64,
        dropout: DropoutRate = 0.0,
        emb_dropout: DropoutRate = 0.0,
        pool: str = "mean",
        norm_eps: NormEps = NORM_EPS,
    ) -> None:
        super().__init__()
        if pool != "mean":
            raise ValueError(
                f"predictor.pool must be 'mean', got {pool!r}: predictions are per token, nothing is pooled"
            )
        self.num_patches = num_patches
        self.num_frames = num_frames
        self.pos_embedding = nn.Parameter(torch.randn(1, num_frames * num_patches, dim))
        self.dropout = nn.Dropout(emb_dropout)
        self.transformer = Transformer(
            depth,
            dim,
            mlp_dim,
            heads=heads,
            dim_head=dim_head,
            dropout=dropout,
            tokens_per_frame=num_patches,
            norm_eps=norm_eps,
        )
        self.activations_per_token = depth * (6 * dim + 5 * heads * dim_head + 2 * mlp_dim) + 2 * dim

    def forward(self, tokens: Tensor) -> Tensor:
        """Map frame-major tokens (B, F * P, dim) to (B, F * P, dim), each frame's tokens one model step later.

        Raises:
            ValueError: If the tokens are not F whole frames with 1 <= F <= ``num_frames``.
        """
        return self.extend(tokens, keep=False)[0]

    def extend(
        self, tokens: Tensor, cache: KVCache = (), wanted: int | None = None, keep: bool = True
    ) -> tuple[Tensor, KVCache]:
        """See the base class. The cache holds keys and values: a later frame changes none of an earlier one's.

        Raises:
            ValueError: As ``forward``, counting the frames in ``cache``.
        """
        first = cache[0].shape[2] if cache else 0
        count = first + tokens.shape[1]
        if count % self.num_patches or not 0 < count <= self.pos_embedding.shape[1]:
            raise ValueError(
                f"the predictor takes 1 to {self.num_frames} frames (num_hist) of {self.num_patches} tokens, "
                f"got {count} tokens"
            )
        placed = self.dropout(tokens + self.pos_embedding[:, first:count])
        return self.transformer(placed, cache, wanted, keep)

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Any], prefix: str, *args: Any) -> None:
        positions = state_dict.get(prefix + "pos_embedding")
        count = self.pos_embedding.shape[1]
        # A multiple of P, or it is no longer history but another image size, which has to be refused.
        if positions is not None and positions.shape[1] > count and positions.shape[1] % self.num_patches == 0:
            state_dict[prefix + "pos_embedding"] = positions[:, :count]
        super()._load_from_state_dict(state_dict, prefix, *args)
