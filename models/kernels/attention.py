"""Attention of the tokens of one frame, forward and backward, straight from and to the joint projection's layout."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Blocks of queries and keys, and how a program runs: the best of some dozens on an H200, 196 tokens and 16 heads of 64.
FORWARD = {"block_q": 64, "block_k": 64, "num_warps": 4, "num_stages": 3}
TO_QUERIES = {"block_q": 64, "block_k": 64, "num_warps": 4, "num_stages": 2}
TO_KEYS = {"block_q": 32, "block_k": 64, "num_warps": 4, "num_stages": 3}
NARROWEST = 16  # block that a product of matrices takes
LOG2_E = math.log2(math.e)  # powers of two are what the hardware computes


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Attention in which every token sees every other one.

    Args:
        qkv: (B, n, 3 * heads * d) queries, keys and values of all heads. heads: for d see ``takes_width``.

    Returns:
        (B, n, heads * d) what each token attends to; differentiable once.
    """
    found: Tensor = _Attend.apply(qkv, heads)
    return found


def takes_width(width: int) -> bool:
    """Whether ``attend`` knows heads of this width."""
    return width >= NARROWEST and width & (width - 1) == 0


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int) -> Tensor:
        qkv = qkv.contiguous()
        batch, tokens, joint = qkv.shape
        out, level = qkv.new_empty(batch, tokens, joint // 3), qkv.new_empty(batch, heads, tokens, dtype=torch.float32)
        ctx.sizes = {"tokens": tokens, "heads": heads, "width": joint // (3 * heads)}
        grid = (batch * heads * triton.cdiv(tokens, FORWARD["block_q"]),)  # one axis: the others end at 65535
        scale = ctx.sizes["width"] ** -0.5
        _forward[grid](qkv, out, level, scale * LOG2_E, **ctx.sizes, **_blocks(FORWARD, tokens))
        ctx.save_for_backward(qkv, out, level)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        qkv, out, level = ctx.saved_tensors
        batch, tokens, _ = qkv.shape
        upstream, gradient = upstream.contiguous(), torch.empty_like(qkv)
        shift = torch.empty_like(level)
        scale = ctx.sizes["width"] ** -0.5
        given = (qkv, out, level, upstream, shift, gradient, scale * LOG2_E, scale)
        for kernel, options, split in ((_to_queries, TO_QUERIES, "block_q"), (_to_keys, TO_KEYS, "block_k")):
            grid = (batch * ctx.sizes["heads"] * triton.cdiv(tokens, options[split]),)
            kernel[grid](*given, **ctx.sizes, **_blocks(options, tokens))
        return gradient, None


def _blocks(options: dict[str, int], tokens: int) -> dict[str, int]:
    """``options`` and the size of the last block on each side: 196 tokens are three of 64 and four more."""
    tails = {f"tail_{side}": triton.next_power_of_2(max(tokens % options[f"block_{side}"], NARROWEST)) for side in "qk"}
    return {**options, **tails}


@triton.jit
def _forward(
    qkv, out, level, scale, tokens: tl.constexpr, heads: tl.constexpr, width: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, tail_q: tl.constexpr, tail_k: tl.constexpr,
):  # fmt: skip
    row, first = _place(tokens, block_q)
    stride: tl.constexpr = 3 * heads * width
    qkv += _start(row, tokens, heads, stride, width)
    out += _start(row, tokens, heads, heads * width, width)
    level += row * tokens
    if first + block_q > tokens:
        _attend_rows(qkv, out, level, scale, first, tokens, heads, width, tail_q, block_k, tail_k)
    else:
        _attend_rows(qkv, out, level, scale, first, tokens, heads, width, block_q, block_k, tail_k)


@triton.jit
def _attend_rows(
    qkv, out, level, scale, first, tokens: tl.constexpr, heads: tl.constexpr, width: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, tail_k: tl.constexpr,
):  # fmt: skip
    stride: tl.constexpr = 3 * heads * width
    query = _rows(qkv, first, tokens, stride, width, block_q, True)
    highest = tl.full([block_q], float("-inf"), tl.float32)
    total = tl.zeros([block_q], tl.float32)
    found = tl.zeros([block_q, width], tl.float32)
    whole: tl.constexpr = tokens // block_k * block_k
    for start in range(0, whole, block_k):
        key = _rows(qkv + heads * width, start, tokens, stride, width, block_k, False)
        value = _rows(qkv + 2 * heads * width, start, tokens, stride, width, block_k, False)
        highest, total, found = _see(query, key, value, start, scale, highest, total, found, tokens, block_k, False)
    if whole < tokens:
        key = _rows(qkv + heads * width, whole, tokens, stride, width, tail_k, True)
        value = _rows(qkv + 2 * heads * width, whole, tokens, stride, width, tail_k, True)
        highest, total, found = _see(query, key, value, whole, scale, highest, total, found, tokens, tail_k, True)
    _store_rows(out, found / total[:, None], first, tokens, heads * width, width, block_q)
    _store_each(level, highest + tl.log2(total), first, tokens, block_q)


@triton.jit
def _see(
    query, key, value, start, scale, highest, total, found, tokens: tl.constexpr, block_k: tl.constexpr,
    masked: tl.constexpr,
):  # fmt: skip
    scores = tl.dot(query, tl.trans(key))
    if masked:
        scores = tl.where((start + tl.arange(0, block_k) < tokens)[None, :], scores, float("-inf"))
    higher = tl.maximum(highest, tl.max(scores, 1) * scale)
    weights = tl.exp2(scores * scale - higher[:, None])
    faded = tl.exp2(highest - higher)
    total = total * faded + tl.sum(weights, 1)
    found = tl.dot(weights.to(value.dtype), value, found * faded[:, None])
    return higher, total, found


@triton.jit
def _to_queries(
    qkv, out, level, upstream, shift, gradient, scale, plain_scale,
    tokens: tl.constexpr, heads: tl.constexpr, width: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, tail_q: tl.constexpr, tail_k: tl.constexpr,
):  # fmt: skip
    row, first = _place(tokens, block_q)
    joint = _start(row, tokens, heads, 3 * heads * width, width)
    plain = _start(row, tokens, heads, heads * width, width)
    qkv += joint
    gradient += joint
    out += plain
    upstream += plain
    level += row * tokens
    shift += row * tokens
    if first + block_q > tokens:
        _to_some_queries(
            qkv, out, level, upstream, shift, gradient, scale, plain_scale, first,
            tokens, heads, width, tail_q, block_k, tail_k,
        )  # fmt: skip
    else:
        _to_some_queries(
            qkv, out, level, upstream, shift, gradient, scale, plain_scale, first,
            tokens, heads, width, block_q, block_k, tail_k,
        )  # fmt: skip


@triton.jit
def _to_some_queries(
    qkv, out, level, upstream, shift, gradient, scale, plain_scale, first,
    tokens: tl.constexpr, heads: tl.constexpr, width: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, tail_k: tl.constexpr,
):  # fmt: skip
    stride: tl.constexpr = 3 * heads * width
    query, above, height, moved = _asked(qkv, out, level, upstream, shift, first, tokens, heads, width, block_q)
    found = tl.zeros([block_q, width], tl.float32)
    whole: tl.constexpr = tokens // block_k * block_k
    for start in range(0, whole, block_k):
        key = _rows(qkv + heads * width, start, tokens, stride, width, block_k, False)
        value = _rows(qkv + 2 * heads * width, start, tokens, stride, width, block_k, False)
        found = _from_keys(query, above, height, moved, key, value, start, scale, found, tokens, block_k, False)
    if whole < tokens:
        key = _rows(qkv + heads * width, whole, tokens, stride, width, tail_k, True)
        value = _rows(qkv + 2 * heads * width, whole, tokens, stride, width, tail_k, True)
        found = _from_keys(query, above, height, moved, key, value, whole, scale, found, tokens, tail_k, True)
    _store_rows(gradient, found * plain_scale, first, tokens, stride, width, block_q)


@triton.jit
def _asked(
    qkv, out, level, upstream, shift, first, tokens: tl.constexpr, heads: tl.constexpr, width: tl.constexpr,
    block_q: tl.constexpr,
):  # fmt: skip
    query = _rows(qkv, first, tokens, 3 * heads * width, width, block_q, True)
    above = _rows(upstream, first, tokens, heads * width, width, block_q, True)
    attended = _rows(out, first, tokens, heads * width, width, block_q, True)
    moved = tl.sum(above.to(tl.float32) * attended.to(tl.float32), 1)
    _store_each(shift, moved, first, tokens, block_q)  # the other kernel needs it, too
    at = first + tl.arange(0, block_q)
    return query, above, tl.load(level + at, mask=at < tokens, other=float("inf")), moved


@triton.jit
def _from_keys(
    query, above, height, moved, key, value, start, scale, found, tokens: tl.constexpr, block_k: tl.constexpr,
    masked: tl.constexpr,
):  # fmt: skip
    weights = tl.exp2(tl.dot(query, tl.trans(key)) * scale - height[:, None])
    if masked:
        weights = tl.where((start + tl.arange(0, block_k) < tokens)[None, :], weights, 0.0)
    slopes = weights * (tl.dot(above, tl.trans(value)) - moved[:, None])
    return tl.dot(slopes.to(key.dtype), key, found)


@triton.jit
def _to_keys(
    qkv, out, level, upstream, shift, gradient, scale, plain_scale,
    tokens: tl.constexpr, heads: tl.constexpr, width: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, tail_q: tl.constexpr, tail_k: tl.constexpr,
):  # fmt: skip
    row, first = _place(tokens, block_k)
    joint = _start(row, tokens, heads, 3 * heads * width, width)
    qkv += joint
    gradient += joint
    upstream += _start(row, tokens, heads, heads * width, width)
    level += row * tokens
    shift += row * tokens
    if first + block_k > tokens:
        _to_some_keys(
            qkv, level, upstream, shift, gradient, scale, plain_scale, first,
            tokens, heads, width, tail_k, block_q, tail_q,
        )  # fmt: skip
    else:
        _to_some_keys(
            qkv, level, upstream, shift, gradient, scale, plain_scale, first,
            tokens, heads, width, block_k, block_q, tail_q,
        )  # fmt: skip


@triton.jit
def _to_some_keys(
    qkv, level, upstream, shift, gradient, scale, plain_scale, first,
    tokens: tl.constexpr, heads: tl.constexpr, width: tl.constexpr,
    block_k: tl.constexpr, block_q: tl.constexpr, tail_q: tl.constexpr,
):  # fmt: skip
    stride: tl.constexpr = 3 * heads * width
    keys, values = qkv + heads * width, qkv + 2 * heads * width
    key = _rows(keys, first, tokens, stride, width, block_k, True)
    value = _rows(values, first, tokens, stride, width, block_k, True)
    to_key = tl.zeros([block_k, width], tl.float32)
    to_value = tl.zeros([block_k, width], tl.float32)
    whole: tl.constexpr = tokens // block_q * block_q
    for start in range(0, whole, block_q):
        query = _rows(qkv, start, tokens, stride, width, block_q, False)
        above = _rows(upstream, start, tokens, heads * width, width, block_q, False)
        at = start + tl.arange(0, block_q)
        height, moved = tl.load(level + at), tl.load(shift + at)
        to_key, to_value = _from_queries(
            key, value, query, above, height, moved, first, scale, to_key, to_value, tokens, block_k
        )
    if whole < tokens:
        query = _rows(qkv, whole, tokens, stride, width, tail_q, True)
        above = _rows(upstream, whole, tokens, heads * width, width, tail_q, True)
        at = whole + tl.arange(0, tail_q)
        height = tl.load(level + at, mask=at < tokens, other=float("inf"))
        moved = tl.load(shift + at, mask=at < tokens, other=0.0)
        to_key, to_value = _from_queries(
            key, value, query, above, height, moved, first, scale, to_key, to_value, tokens, block_k
        )
    to_keys, to_values = gradient + heads * width, gradient + 2 * heads * width
    _store_rows(to_keys, to_key * plain_scale, first, tokens, stride, width, block_k)
    _store_rows(to_values, to_value, first, tokens, stride, width, block_k)


@triton.jit
def _from_queries(
    key, value, query, above, height, moved, first, scale, to_key, to_value, tokens: tl.constexpr,
    block_k: tl.constexpr,
):  # fmt: skip
    weights = tl.exp2(tl.dot(key, tl.trans(query)) * scale - height[None, :])  # (keys, queries)
    # keys that do not exist are zeros, whose weight could overflow
    weights = tl.where((first + tl.arange(0, block_k) < tokens)[:, None], weights, 0.0)
    to_value = tl.dot(weights.to(above.dtype), above, to_value)
    slopes = weights * (tl.dot(value, tl.trans(above)) - moved[None, :])
    return tl.dot(slopes.to(query.dtype), query, to_key), to_value


@triton.jit
def _place(tokens: tl.constexpr, block: tl.constexpr):
    program = tl.program_id(0)
    count: tl.constexpr = (tokens + block - 1) // block
    return (program // count).to(tl.int64), program % count * block


@triton.jit
def _start(row, tokens: tl.constexpr, heads: tl.constexpr, stride: tl.constexpr, width: tl.constexpr):
    return row // heads * tokens * stride + row % heads * width


@triton.jit
def _rows(
    base, first, tokens: tl.constexpr, stride: tl.constexpr, width: tl.constexpr, block: tl.constexpr,
    masked: tl.constexpr,
):  # fmt: skip
    at, entry = first + tl.arange(0, block), tl.arange(0, width)
    places = base + at[:, None] * stride + entry[None, :]
    if masked:
        found = tl.load(places, mask=(at < tokens)[:, None], other=0.0)
    else:
        found = tl.load(places)
    return found


@triton.jit
def _store_rows(
    base, values, first, tokens: tl.constexpr, stride: tl.constexpr, width: tl.constexpr, block: tl.constexpr
):
    at, entry = first + tl.arange(0, block), tl.arange(0, width)
    places = base + at[:, None] * stride + entry[None, :]
    tl.store(places, values.to(base.dtype.element_ty), mask=(at < tokens)[:, None])


@triton.jit
def _store_each(base, values, first, tokens: tl.constexpr, block: tl.constexpr):
    at = first + tl.arange(0, block)
    tl.store(base + at, values, mask=at < tokens)
