"""DINO-WM's predictor: a transformer over the patch tokens of a few frames, causal from frame to frame."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.interfaces import Memory, Predictor
from models.speed.cpu_kernels import attention as cpu_kernels
from models.speed.dropout import Dropout
from models.speed.prepared_linear import Linear


class Attention(nn.Module):
    """Self-attention in which a token sees all tokens of its own and of earlier frames."""

    def __init__(self, dim: int, heads: int, dim_head: int, dropout: float, tokens_per_frame: int) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = Dropout(dropout)
        self.tokens_per_frame = tokens_per_frame
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Sequential(Linear(heads * dim_head, dim), Dropout(dropout))

    def forward(self, tokens: Tensor, past: Memory = (), wanted: int | None = None) -> tuple[Tensor, Memory]:
        """(B, F * P, dim) -> (B, wanted, dim) of the last tokens, and the keys and values of all frames.

        Args:
            past: keys and values (B, heads, m, d) of earlier frames, or nothing.
        """
        attended, seen = self.attend(self.norm(tokens), past, tokens.shape[1] if wanted is None else wanted)
        return self.to_out(attended), seen

    def attend(self, normed: Tensor, past: Memory, wanted: int) -> tuple[Tensor, Memory]:
        """As ``forward``, between the norm before and the linear map after it: (B, wanted, heads * d)."""
        projected = self._project(normed, wanted)
        query, key, value = (part.transpose(1, 2) for source in projected for part in source.unbind(2))
        if past:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        if not self.dropout.acts() and cpu_kernels.takes(query):
            sources = [part.transpose(1, 2)[:, :, None] for part in (query, key, value)] if past else projected
            return cpu_kernels.attend(*sources, frame=self.tokens_per_frame).flatten(2), (key, value)
        if self._writes_attention_out(query):
            query, key, value = (part.contiguous() for part in (query, key, value))  # once, not for every frame
        # One call per frame instead of one masked call: nothing hidden is computed, and kernels that know no masks fit.
        size, total = self.tokens_per_frame, key.shape[2]
        attended = [
            self._attend(part, key[:, :, :end], value[:, :, :end])
            for part, end in zip(query.split(size, 2), range(total - wanted + size, total + 1, size), strict=True)
        ]
        joined = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
        return joined.transpose(1, 2).flatten(2), (key, value)

    def _project(self, normed: Tensor, wanted: int) -> tuple[Tensor, ...]:
        """Queries of the last ``wanted`` tokens, keys and values of all: one or two (B, tokens, parts, heads, d)."""
        unused = normed.shape[1] - wanted
        if not unused:
            return (self.to_qkv(normed).unflatten(-1, (3, self.heads, -1)),)
        third = self.to_qkv.out_features // 3
        query = self.to_qkv(normed[:, unused:], slice(third)).unflatten(-1, (1, self.heads, -1))
        return query, self.to_qkv(normed, slice(third, None)).unflatten(-1, (2, self.heads, -1))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of some queries to all keys, (B, heads, n, dim_head) each, with dropout on its weights."""
        if self._writes_attention_out(query):
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
            weights = torch.softmax(scores, -1, dtype=scores.dtype)
            return self.dropout(weights) @ value
        dropout = self.dropout.p if self.dropout.acts() else 0.0
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)

    def _writes_attention_out(self, query: Tensor) -> bool:
        """Torch's fused kernel for a CPU knows no dropout, and takes three times as long as these products in bf16."""
        if self.dropout.acts():
            return self.dropout.is_fast_on(query)
        return query.device.type == "cpu" and query.dtype == torch.bfloat16

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Any], prefix: str, *args: Any) -> None:
        """Drop the causal mask that released checkpoints carry as a (1, 1, n, n) buffer named ``bias``."""
        mask = state_dict.get(prefix + "bias")
        if mask is not None and mask.ndim == 4:
            del state_dict[prefix + "bias"]
        super()._load_from_state_dict(state_dict, prefix, *args)


class FeedForward(nn.Module):
    """LayerNorm and a two-layer MLP with exact GELU."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        widen, narrow = Linear(dim, hidden), Linear(hidden, dim)
        self.net = nn.Sequential(nn.LayerNorm(dim), widen, nn.GELU(), Dropout(dropout), narrow, Dropout(dropout))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, n, dim) -> (B, n, dim)."""
        return self.net(tokens)


class Transformer(nn.Module):
    """Pre-norm residual blocks and a last LayerNorm."""

    def __init__(self, depth: int, dim: int, mlp_dim: int, **attention: Any) -> None:
        super().__init__()
        dropout = attention["dropout"]
        self.layers = nn.ModuleList(
            nn.ModuleList([Attention(dim, **attention), FeedForward(dim, mlp_dim, dropout)]) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, tokens: Tensor, memory: Memory = (), wanted: int | None = None, remember: bool = False
    ) -> tuple[Tensor, Memory]:
        """(B, F * P, dim) -> (B, wanted, dim) of the last tokens, and the keys and values of each layer in turn.

        Earlier tokens take no part in the last layer beyond their keys and values. See ``Predictor.extend``.
        """
        kept: list[Tensor] = []
        wanted = tokens.shape[1] if wanted is None else wanted
        for number, layer in enumerate(self.layers):
            attention, mlp = cast(nn.ModuleList, layer)
            here = wanted if number + 1 == len(self.layers) else tokens.shape[1]
            change, seen = attention(tokens, memory[2 * number : 2 * number + 2], here)
            tokens = tokens[:, tokens.shape[1] - here :] + change
            tokens = tokens + mlp(tokens)
            kept += seen if remember else ()
        return self.norm(tokens[:, tokens.shape[1] - wanted :]), tuple(kept)


class ViTPredictor(Predictor):
    """Predict the tokens one model step after each of up to ``num_frames`` frames.

    Tensor names are those of released DINO-WM checkpoints, so their state loads as it is. Their mask is dropped, and
    of a checkpoint with a longer history the first positions are taken: a shorter history never uses the others.

    Args:
        num_patches: P, tokens per frame.
        num_frames: most frames seen at once (``num_hist``).
        dim: token width. depth: blocks. heads, dim_head: of the attention. mlp_dim: hidden width.
        dropout: on attention weights, attention output and MLP; emb_dropout: on the embedded tokens. Training only.
        pool: only "mean", which is what released configs say; a prediction per token pools nothing.

    Attributes:
        activations_per_token: floats that one forward keeps for the backward, per token; for memory budgets.

    Source: Zhou et al., DINO-WM, arXiv 2411.04983, appendix A.
    """

    def __init__(
        self,
        num_patches: int,
        num_frames: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        dim_head: int = 64,
        dropout: float = 0.0,
        emb_dropout: float = 0.0,
        pool: str = "mean",
    ) -> None:
        super().__init__()
        if pool != "mean":
            raise ValueError(
                f"predictor.pool must be 'mean', got {pool!r}: predictions are per token, nothing is pooled"
            )
        self.num_patches = num_patches
        self.num_frames = num_frames
        self.pos_embedding = nn.Parameter(torch.randn(1, num_frames * num_patches, dim))
        self.dropout = Dropout(emb_dropout)
        self.transformer = Transformer(
            depth, dim, mlp_dim, heads=heads, dim_head=dim_head, dropout=dropout, tokens_per_frame=num_patches
        )
        self.activations_per_token = depth * (6 * dim + 5 * heads * dim_head + 2 * mlp_dim) + 2 * dim

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, F * P, dim) frame-major tokens -> (B, F * P, dim), each frame's tokens one model step later.

        Raises:
            ValueError: If the tokens are not F whole frames with 1 <= F <= ``num_frames``.
        """
        return self.extend(tokens, remember=False)[0]

    def extend(
        self, tokens: Tensor, memory: Memory = (), wanted: int | None = None, remember: bool = True
    ) -> tuple[Tensor, Memory]:
        """See the base class. The memory holds keys and values: a later frame changes none of an earlier one's.

        Raises:
            ValueError: As ``forward``, counting the frames in ``memory``.
        """
        first = memory[0].shape[2] if memory else 0
        count = first + tokens.shape[1]
        if count % self.num_patches or not 0 < count <= self.pos_embedding.shape[1]:
            raise ValueError(
                f"the predictor takes 1 to {self.num_frames} frames (num_hist) of {self.num_patches} tokens, "
                f"got {count} tokens"
            )
        placed = self.dropout(tokens + self.pos_embedding[:, first:count])
        return self.transformer(placed, memory, wanted, remember)

    def compiled_parts(self) -> list[nn.Module]:
        """See the base class."""
        return [self.transformer]

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Any], prefix: str, *args: Any) -> None:
        positions = state_dict.get(prefix + "pos_embedding")
        count = self.pos_embedding.shape[1]
        # A multiple of P, or it is no longer history but another image size, which has to be refused.
        if positions is not None and positions.shape[1] > count and positions.shape[1] % self.num_patches == 0:
            state_dict[prefix + "pos_embedding"] = positions[:, :count]
        super()._load_from_state_dict(state_dict, prefix, *args)
