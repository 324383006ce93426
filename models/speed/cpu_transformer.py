"""The predictor's transformer on a CPU: between its products our own kernels, which read and write each tensor once."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from models.interfaces import KVCache
from models.networks.vit import FeedForward, Transformer
from models.speed.attention import FastAttention
from models.speed.cpu_kernels import between
from models.speed.dropout import FastDropout

_Mlp = tuple[nn.LayerNorm, nn.Module, nn.GELU, nn.Dropout, nn.Module, nn.Dropout]


class KernelTransformer(Transformer):
    """``Transformer`` out of our own kernels and the products of its linear maps, in planning and in training."""

    def forward(
        self, tokens: Tensor, cache: KVCache = (), wanted: int | None = None, keep: bool = False
    ) -> tuple[Tensor, KVCache]:
        """See ``Transformer.forward``."""
        if not self._takes(tokens):
            return super().forward(tokens, cache, wanted, keep)
        kept: list[Tensor] = []
        wanted, layers = tokens.shape[1] if wanted is None else wanted, len(self.layers)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tokens.dtype
        attention, _ = _parts(self.layers[0])
        total, normed = between.add_norm(tokens, None, attention.norm, dtype)
        for number, layer in enumerate(self.layers):
            attention, (norm, widen, _, inner, narrow, outer) = _parts(layer)
            here = wanted if number + 1 == layers else tokens.shape[1]
            attended, seen = attention.attended(normed, cache[2 * number : 2 * number + 2], here)
            total = total[:, tokens.shape[1] - here :]
            project, dropout = cast(tuple[nn.Module, nn.Dropout], attention.to_out)
            total, normed = between.add_norm(total, project(attended), norm, dtype, _rate(dropout))
            change = narrow(between.gelu(widen(normed), _rate(inner)))
            last = number + 1 == layers
            after = self.norm if last else _parts(self.layers[number + 1])[0].norm
            total, normed = between.add_norm(total, change, after, tokens.dtype if last else dtype, _rate(outer))
            kept += seen if keep else ()
        return normed[:, normed.shape[1] - wanted :], tuple(kept)

    def _takes(self, tokens: Tensor) -> bool:
        """Whether our kernels compute it: float32 on a CPU, in bf16 under autocast, with masks of our own."""
        if tokens.device.type != "cpu" or tokens.dtype != torch.float32 or torch.compiler.is_compiling():
            return False
        if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") not in between.TYPES:
            return False
        dropouts = (module for module in self.modules() if isinstance(module, nn.Dropout))
        return all(isinstance(dropout, FastDropout) or not _rate(dropout) for dropout in dropouts)


def _parts(layer: nn.Module) -> tuple[FastAttention, _Mlp]:
    attention, mlp = cast(tuple[FastAttention, FeedForward], tuple(cast(nn.ModuleList, layer)))
    return attention, cast(_Mlp, tuple(mlp.net))


def _rate(dropout: nn.Dropout) -> float:
    return dropout.p if dropout.training else 0.0
