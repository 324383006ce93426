"""Blocks of the numbers of one head: where they lie, and how kernels of attention load and store them."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place(tokens: tl.constexpr, block: tl.constexpr):
    program = tl.program_id(0)
    count: tl.constexpr = (tokens + block - 1) // block
    return (program // count).to(tl.int64), program % count * block


@triton.jit
def start_of(row, tokens: tl.constexpr, heads: tl.constexpr, stride: tl.constexpr, width: tl.constexpr):
    return row // heads * tokens * stride + row % heads * width


@triton.jit
def load_rows(
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
def store_rows(
    base, values, first, tokens: tl.constexpr, stride: tl.constexpr, width: tl.constexpr, block: tl.constexpr
):
    at, entry = first + tl.arange(0, block), tl.arange(0, width)
    places = base + at[:, None] * stride + entry[None, :]
    tl.store(places, values.to(base.dtype.element_ty), mask=(at < tokens)[:, None])


@triton.jit
def store_each(base, values, first, tokens: tl.constexpr, block: tl.constexpr):
    at = first + tl.arange(0, block)
    tl.store(base + at, values, mask=at < tokens)
