"""Attention that takes the place of the plain one in a built network, with its weights."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from models.interfaces import KVCache
from models.networks.dinov2_vit import SelfAttention
from models.networks.vit import Attention
from models.speed.cpu_kernels import attention as cpu_kernels
from models.speed.dropout import FastDropout
from models.speed.linear import SlicedLinear


class FastAttention(Attention):
    """``Attention`` that projects only those queries that are wanted, and reads no tensor twice.

    Attributes:
        kernels: Types of numbers for which our own kernel computes it on a CPU.
        to_qkv: A linear map of which parts of the outputs can be asked for.
    """

    kernels: tuple[torch.dtype, ...] = ()

    def forward(self, tokens: Tensor, past: KVCache = (), wanted: int | None = None) -> tuple[Tensor, KVCache]:
        """See ``Attention.forward``."""
        attended, seen = self.attended(self.norm(tokens), past, tokens.shape[1] if wanted is None else wanted)
        return self.to_out(attended), seen

    def attended(self, normed: Tensor, past: KVCache, wanted: int) -> tuple[Tensor, KVCache]:
        """Compute what lies between the norm before and the linear map after it: (B, wanted, heads * d)."""
        projected = self._project(normed, wanted)
        query, key, value = (part.transpose(1, 2) for source in projected for part in source.unbind(2))
        if past:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        rate = self.dropout.p if self.training else 0.0
        masks = not rate or isinstance(self.dropout, FastDropout)
        if query.dtype in self.kernels and masks and cpu_kernels.takes(query):
            sources = [part.transpose(1, 2)[:, :, None] for part in (query, key, value)] if past else projected
            return cpu_kernels.attend(*sources, frame=self.tokens_per_frame, p=rate).flatten(2), (key, value)
        return self.attend(query, key, value).transpose(1, 2).flatten(2), (key, value)

    def _project(self, normed: Tensor, wanted: int) -> tuple[Tensor, ...]:
        """Queries of the last ``wanted`` tokens, keys and values of all: one or two (B, tokens, parts, heads, d)."""
        unused = normed.shape[1] - wanted
        if not unused:
            return (self.to_qkv(normed).unflatten(-1, (3, self.heads, -1)),)
        layer = cast(SlicedLinear, self.to_qkv)
        third = layer.out_features // 3
        query = layer(normed[:, unused:], slice(third)).unflatten(-1, (1, self.heads, -1))
        return query, layer(normed, slice(third, None)).unflatten(-1, (2, self.heads, -1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See ``Attention.attend``."""
        if self._writes_out(query):
            query, key, value = (part.contiguous() for part in (query, key, value))  # once, not for every frame
        alone = query.shape[2] == key.shape[2] == self.tokens_per_frame
        return self.average(query, key, value) if alone else super().attend(query, key, value)

    def average(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See ``Attention.average``."""
        if not self._writes_out(query):
            return super().average(query, key, value)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        weights = torch.softmax(scores, -1, dtype=scores.dtype)
        return self.dropout(weights) @ value

    def _writes_out(self, query: Tensor) -> bool:
        """Torch's fused kernel for a CPU knows no dropout, and takes three times as long as these products in bf16."""
        if self.training and self.dropout.p:
            return isinstance(self.dropout, FastDropout) and self.dropout.draws(query)
        return query.device.type == "cpu" and query.dtype == torch.bfloat16


class KernelSelfAttention(SelfAttention):
    """``SelfAttention`` by our own kernel on a CPU.

    Attributes:
        kernels: Types of numbers for which it computes it.
    """

    kernels: tuple[torch.dtype, ...] = ()

    def forward(self, tokens: Tensor) -> Tensor:
        """See ``SelfAttention.forward``."""
        joint = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1))
        if joint.dtype not in self.kernels or not cpu_kernels.takes(joint):
            return super().forward(tokens)
        return self.proj(cpu_kernels.attend(joint, frame=tokens.shape[1]).flatten(2))
