"""Attention of the tokens of one frame, forward and backward, straight from and to the joint projection's layout."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.speed.gpu_kernels.attention_backward import to_keys, to_queries
from models.speed.gpu_kernels.blocks import load_rows, place, start_of, store_each, store_rows

# Blocks of queries and keys, and how a program runs: the best of some dozens on an H200, 196 tokens and 16 heads of 64.
FORWARD = {"block_q": 64, "block_k": 64, "num_warps": 4, "num_stages": 3}
TO_QUERIES = {"block_q": 64, "block_k": 64, "num_warps": 4, "num_stages": 2}
TO_KEYS = {"block_q": 32, "block_k": 64, "num_warps": 4, "num_stages": 3}
NARROWEST = 16  # block that a product of matrices takes
WIDEST = 128  # heads of 256 take more shared memory than most GPUs have
LOG2_E = math.log2(math.e)  # powers of two are what the hardware computes


def attend(qkv: Tensor, heads: int) -> Tensor:
    """Attention in which every token sees every other one.

    Args:
        qkv: (B, n, 3 * heads * d) queries, keys and values of all heads; for d see ``takes_width``.
        heads: Number of heads.

    Returns:
        (B, n, heads * d) what each token attends to; differentiable once.
    """
    found: Tensor = _Attend.apply(qkv, heads)
    return found


def takes_width(width: int) -> bool:
    """Whether ``attend`` knows heads of this width."""
    return NARROWEST <= width <= WIDEST and width & (width - 1) == 0


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
        for kernel, options, split in ((to_queries, TO_QUERIES, "block_q"), (to_keys, TO_KEYS, "block_k")):
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
    row, first = place(tokens, block_q)
    stride: tl.constexpr = 3 * heads * width
    qkv += start_of(row, tokens, heads, stride, width)
    out += start_of(row, tokens, heads, heads * width, width)
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
    query = load_rows(qkv, first, tokens, stride, width, block_q, True)
    highest = tl.full([block_q], float("-inf"), tl.float32)
    total = tl.zeros([block_q], tl.float32)
    found = tl.zeros([block_q, width], tl.float32)
    whole: tl.constexpr = tokens // block_k * block_k
    for start in range(0, whole, block_k):
        key = load_rows(qkv + heads * width, start, tokens, stride, width, block_k, False)
        value = load_rows(qkv + 2 * heads * width, start, tokens, stride, width, block_k, False)
        highest, total, found = _see(query, key, value, start, scale, highest, total, found, tokens, block_k, False)
    if whole < tokens:
        key = load_rows(qkv + heads * width, whole, tokens, stride, width, tail_k, True)
        value = load_rows(qkv + 2 * heads * width, whole, tokens, stride, width, tail_k, True)
        highest, total, found = _see(query, key, value, whole, scale, highest, total, found, tokens, tail_k, True)
    store_rows(out, found / total[:, None], first, tokens, heads * width, width, block_q)
    store_each(level, highest + tl.log2(total), first, tokens, block_q)


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
