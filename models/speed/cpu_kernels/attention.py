"""Attention of frames that see themselves and earlier ones, without copies of queries, keys and values."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from models.speed.cpu_kernels.build import call, load
from models.speed.cpu_kernels.masks import Mask, drawn

WIDTHS = 32  # heads are a multiple of it wide, for which all vectors are whole


class Executed:
    """Arithmetic of the whole process, which torch cannot count: FLOP of the products of queries, keys and values."""

    flops = 0


def takes(values: Tensor) -> bool:
    """Whether ``attend`` computes for queries, keys or values (..., d)."""
    if values.device.type != "cpu" or not values.numel() or values.shape[-1] % WIDTHS or torch.compiler.is_compiling():
        return False
    return values.dtype == torch.float32 or (values.dtype == torch.bfloat16 and bool(load().has_bf16()))


def attend(*sources: Tensor, frame: int, p: float = 0.0) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, in which a query sees all keys but those of later frames.

    Args:
        sources: (B, tokens, parts, heads, d) with the queries, keys and values: one of three parts, or several tensors
            with fewer, in this order. There may be more keys than queries, which are those of the last frames. All in
            float32 or in bf16.
        frame: Tokens of a frame; queries are whole frames.
        p: Probability that a weight of the softmax is dropped.

    Returns:
        (B, queries, heads, d); differentiable once.

    Raises:
        ValueError: If shapes or types do not go together; the kernel itself would read what is not there.
    """
    found: Tensor = _Attend.apply(frame, drawn(p), *sources)
    return found


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frame: int, mask: Mask, *sources: Tensor) -> Tensor:
        sources = tuple(source if source.stride(-1) == 1 else source.contiguous() for source in sources)
        query, key, value = _parts(sources)
        _check(query, key, value, frame)
        batch, tokens, heads, width = query.shape
        out = query.new_empty(batch, tokens, heads, width)
        level = query.new_empty(batch, heads, tokens, dtype=torch.float32)
        _run(frame, mask, level, False, query, key, value, out)
        ctx.save_for_backward(level, out, *sources)
        ctx.frame, ctx.mask = frame, mask
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        level, out, *sources = ctx.saved_tensors
        gradients = [torch.empty(source.shape, dtype=source.dtype) for source in sources]
        upstream = upstream.to(out.dtype)
        upstream = upstream if upstream.stride(-1) == 1 else upstream.contiguous()
        _run(ctx.frame, ctx.mask, level, True, *_parts(sources), out, upstream, *_parts(gradients))
        return None, None, *gradients


def _check(query: Tensor, key: Tensor, value: Tensor, frame: int) -> None:
    _, tokens, *others = query.shape
    fits = key.shape == value.shape and query.shape[0] == key.shape[0] and others == list(key.shape[2:])
    if not fits or frame < 1 or tokens % frame or key.shape[1] % frame or key.shape[1] < tokens:
        raise ValueError(
            f"attention takes whole frames of {frame} tokens, and no more queries than keys, got queries "
            f"{tuple(query.shape)}, keys {tuple(key.shape)} and values {tuple(value.shape)}"
        )
    types = {(part.dtype, part.device.type) for part in (query, key, value)}
    if query.shape[-1] % WIDTHS:
        raise ValueError(f"attention on a CPU takes heads that are a multiple of {WIDTHS} wide, got {query.shape[-1]}")
    if types not in ({(torch.float32, "cpu")}, {(torch.bfloat16, "cpu")}):
        raise ValueError(f"attention on a CPU takes float32 or bf16 alone, got {sorted(map(str, types))}")


def _parts(sources: list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
    """Queries, keys and values (B, tokens, heads, d)."""
    return [part for source in sources for part in source.unbind(2)]


def _run(frame: int, mask: Mask, level: Tensor, backward: bool, *matrices: Tensor) -> None:
    """Matrices in the order of ``Problem`` in ``attention.cpp``, those of the backward left out before it."""
    query, key = matrices[:2]
    batch, tokens, heads, width = query.shape
    numbers: list[int] = []
    for matrix in matrices:
        numbers += (matrix.data_ptr(), matrix.stride(0), matrix.stride(2), matrix.stride(1))
    numbers += [0] * (4 * 8 - len(numbers))
    numbers += (level.data_ptr(), batch, heads, tokens, key.shape[1], frame, width, *mask)
    array = (ctypes.c_long * len(numbers))(*numbers)
    with call("attend"):
        load().attend(array, width**-0.5, query.dtype == torch.bfloat16, backward, torch.get_num_threads())
    seen = sum(range(key.shape[1] - tokens + frame, key.shape[1] + 1, frame)) * frame  # pairs of a query and a key
    Executed.flops += (2 + 3 * backward) * 2 * batch * heads * width * seen
