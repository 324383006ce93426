"""Gradients of attention: a kernel whose programs share the queries, and one whose programs share keys and values.

Weights of the attention are computed again, from queries, keys and the logarithm of their sum (``level``).

Source: Dao et al. 2022, FlashAttention, algorithm 4; ``shift`` is its D, the sum of gradient times output over a row.
"""

from __future__ import annotations

import triton
import triton.language as tl

from models.speed.gpu_kernels.blocks import load_rows, place, start_of, store_each, store_rows


@triton.jit
def to_queries(
    qkv, out, level, upstream, shift, gradient, scale, plain_scale,
    tokens: tl.constexpr, heads: tl.constexpr, width: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, tail_q: tl.constexpr, tail_k: tl.constexpr,
):  # fmt: skip
    row, first = place(tokens, block_q)
    joint = start_of(row, tokens, heads, 3 * heads * width, width)
    plain = start_of(row, tokens, heads, heads * width, width)
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
        key = load_rows(qkv + heads * width, start, tokens, stride, width, block_k, False)
        value = load_rows(qkv + 2 * heads * width, start, tokens, stride, width, block_k, False)
        found = _from_keys(query, above, height, moved, key, value, start, scale, found, tokens, block_k, False)
    if whole < tokens:
        key = load_rows(qkv + heads * width, whole, tokens, stride, width, tail_k, True)
        value = load_rows(qkv + 2 * heads * width, whole, tokens, stride, width, tail_k, True)
        found = _from_keys(query, above, height, moved, key, value, whole, scale, found, tokens, tail_k, True)
    store_rows(gradient, found * plain_scale, first, tokens, stride, width, block_q)


@triton.jit
def _asked(
    qkv, out, level, upstream, shift, first, tokens: tl.constexpr, heads: tl.constexpr, width: tl.constexpr,
    block_q: tl.constexpr,
):  # fmt: skip
    query = load_rows(qkv, first, tokens, 3 * heads * width, width, block_q, True)
    above = load_rows(upstream, first, tokens, heads * width, width, block_q, True)
    attended = load_rows(out, first, tokens, heads * width, width, block_q, True)
    moved = tl.sum(above.to(tl.float32) * attended.to(tl.float32), 1)
    store_each(shift, moved, first, tokens, block_q)  # the other kernel needs it, too
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
def to_keys(
    qkv, out, level, upstream, shift, gradient, scale, plain_scale,
    tokens: tl.constexpr, heads: tl.constexpr, width: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, tail_q: tl.constexpr, tail_k: tl.constexpr,
):  # fmt: skip
    row, first = place(tokens, block_k)
    joint = start_of(row, tokens, heads, 3 * heads * width, width)
    qkv += joint
    gradient += joint
    upstream += start_of(row, tokens, heads, heads * width, width)
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
    key = load_rows(keys, first, tokens, stride, width, block_k, True)
    value = load_rows(values, first, tokens, stride, width, block_k, True)
    to_key = tl.zeros([block_k, width], tl.float32)
    to_value = tl.zeros([block_k, width], tl.float32)
    whole: tl.constexpr = tokens // block_q * block_q
    for start in range(0, whole, block_q):
        query = load_rows(qkv, start, tokens, stride, width, block_q, False)
        above = load_rows(upstream, start, tokens, heads * width, width, block_q, False)
        at = start + tl.arange(0, block_q)
        height, moved = tl.load(level + at), tl.load(shift + at)
        to_key, to_value = _from_queries(key, value, query, above, height, moved, scale, to_key, to_value)
    if whole < tokens:
        query = load_rows(qkv, whole, tokens, stride, width, tail_q, True)
        above = load_rows(upstream, whole, tokens, heads * width, width, tail_q, True)
        at = whole + tl.arange(0, tail_q)
        height = tl.load(level + at, mask=at < tokens, other=float("inf"))
        moved = tl.load(shift + at, mask=at < tokens, other=0.0)
        to_key, to_value = _from_queries(key, value, query, above, height, moved, scale, to_key, to_value)
    into_keys, into_values = gradient + heads * width, gradient + 2 * heads * width
    store_rows(into_keys, to_key * plain_scale, first, tokens, stride, width, block_k)
    store_rows(into_values, to_value, first, tokens, stride, width, block_k)


@triton.jit
def _from_queries(key, value, query, above, height, moved, scale, to_key, to_value):
    weights = tl.exp2(tl.dot(key, tl.trans(query)) * scale - height[None, :])  # (keys, queries)
    to_value = tl.dot(weights.to(above.dtype), above, to_value)
    slopes = weights * (tl.dot(value, tl.trans(above)) - moved[None, :])
    return tl.dot(slopes.to(query.dtype), query, to_key), to_value
