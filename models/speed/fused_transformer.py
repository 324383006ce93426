"""The predictor's transformer on a GPU, out of kernels that read and write each tensor once."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from models.interfaces import KVCache
from models.networks.vit import FeedForward, Transformer
from models.speed.attention import FastAttention
from models.speed.gpu_kernels.add_norm import add_norm
from models.speed.gpu_kernels.attention import attend, takes_width
from models.speed.gpu_kernels.gelu import gelu
from models.speed.linear import PreparedLinear

_Mlp = tuple[nn.LayerNorm, PreparedLinear, PreparedLinear]


class FusedTransformer(nn.Module):
    """A ``Transformer`` with prepared weights, the same up to rounding, without dropout and gradients of weights.

    Between two products of matrices there is one kernel: attention, GELU, or a residual sum with the norm after it.
    The sum stays in float32, what is multiplied is padded to the widths of the prepared weights from the start.

    Args:
        transformer: Has ``FastAttention`` and ``PreparedLinear``; its modules become those of this one.
    """

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.layers, self.norm = transformer.layers, transformer.norm

    def forward(
        self, tokens: Tensor, cache: KVCache = (), wanted: int | None = None, keep: bool = False
    ) -> tuple[Tensor, KVCache]:
        """See ``Transformer.forward``."""
        kept: list[Tensor] = []
        wanted, layers = tokens.shape[1] if wanted is None else wanted, len(self.layers)
        with torch.autocast(tokens.device.type, enabled=False):  # every type is chosen here
            total, normed = _normed(tokens.float(), None, *self._norm_of(0))
            for number, layer in enumerate(self.layers):
                attention, mlp = cast(tuple[FastAttention, FeedForward], tuple(cast(nn.ModuleList, layer)))
                here = wanted if number + 1 == layers else tokens.shape[1]
                attended, seen = _attended(attention, normed, cache[2 * number : 2 * number + 2], here)
                total = total[:, tokens.shape[1] - here :]
                norm, widen, narrow = cast(_Mlp, (mlp.net[0], mlp.net[1], mlp.net[4]))
                out = cast(PreparedLinear, attention.to_out[0])
                total, normed = _normed(total, out.padded(attended), norm, widen)
                change = narrow.padded(gelu(widen.padded(normed)))
                total, normed = _normed(total, change, *self._norm_of(number + 1))
                kept += seen if keep else ()
        return normed[:, normed.shape[1] - wanted :], tuple(kept)

    def _norm_of(self, number: int) -> tuple[nn.LayerNorm, PreparedLinear | None]:
        """The norm before a layer and the map after it; the last norm comes after all layers."""
        if number == len(self.layers):
            return self.norm, None
        attention = cast(FastAttention, cast(nn.ModuleList, self.layers[number])[0])
        return attention.norm, cast(PreparedLinear, attention.to_qkv)


def _normed(
    total: Tensor, change: Tensor | None, norm: nn.LayerNorm, then: PreparedLinear | None
) -> tuple[Tensor, Tensor]:
    """The sum (B, n, dim) in float32, and normalised as ``then`` takes it; in float32 if nothing takes it."""
    dtype, width = (torch.float32, None) if then is None else (then.weight.dtype, then.weight.shape[1])
    return add_norm(total, change, norm.weight, norm.bias, norm.eps, dtype, width)


def _attended(attention: FastAttention, normed: Tensor, past: KVCache, wanted: int) -> tuple[Tensor, KVCache]:
    """See ``FastAttention.attended``; a frame without a past has a kernel of its own."""
    alone = not past and normed.shape[1] == wanted == attention.tokens_per_frame
    width = attention.to_qkv.out_features // (3 * attention.heads)
    if not alone or not takes_width(width):
        return attention.attended(normed, past, wanted)
    joint = attention.to_qkv(normed)
    _, key, value = joint.unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    return attend(joint, attention.heads), (key, value)
