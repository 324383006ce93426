"""A residual added and the sum normalised, in one pass over memory each way."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 4  # of a program


@triton.jit
def _forward(
    values, change, weight, bias, total, normed, means, scales, rows, eps,
    width: tl.constexpr, change_width: tl.constexpr, normed_width: tl.constexpr, adds: tl.constexpr,
    block: tl.constexpr, height: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * height + tl.arange(0, height)).to(tl.int64)
    column = tl.arange(0, block)
    exists = row < rows
    inside = exists[:, None] & (column < width)[None, :]
    found = tl.load(values + row[:, None] * width + column[None, :], mask=inside, other=0.0).to(tl.float32)
    if adds:
        found += tl.load(change + row[:, None] * change_width + column[None, :], mask=inside, other=0.0).to(tl.float32)
        tl.store(total + row[:, None] * width + column[None, :], found, mask=inside)
    mean = tl.sum(found, 1) / width
    apart = tl.where(inside, found - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(apart * apart, 1) / width + eps)
    by = tl.load(weight + column, mask=column < width, other=0.0)  # zeros beyond the width stay zeros
    plus = tl.load(bias + column, mask=column < width, other=0.0)
    result = apart * scale[:, None] * by[None, :] + plus[None, :]
    room = exists[:, None] & (column < normed_width)[None, :]
    tl.store(normed + row[:, None] * normed_width + column[None, :], result.to(normed.dtype.element_ty), mask=room)
    tl.store(means + row, mean, mask=exists)
    tl.store(scales + row, scale, mask=exists)


@triton.jit
def _backward(
    total, means, scales, weight, to_normed, to_total, to_values, to_change, rows,
    width: tl.constexpr, change_width: tl.constexpr, normed_width: tl.constexpr, adds: tl.constexpr,
    passes: tl.constexpr, block: tl.constexpr, height: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * height + tl.arange(0, height)).to(tl.int64)
    column = tl.arange(0, block)
    exists = row < rows
    inside = exists[:, None] & (column < width)[None, :]
    place = row[:, None] * width + column[None, :]
    found = tl.load(total + place, mask=inside, other=0.0).to(tl.float32)
    mean, scale = tl.load(means + row, mask=exists, other=0.0), tl.load(scales + row, mask=exists, other=0.0)
    by = tl.load(weight + column, mask=column < width, other=0.0)
    upstream = tl.load(to_normed + row[:, None] * normed_width + column[None, :], mask=inside, other=0.0)
    gradient = upstream.to(tl.float32) * by[None, :]
    unit = tl.where(inside, (found - mean[:, None]) * scale[:, None], 0.0)
    along, middle = tl.sum(gradient * unit, 1) / width, tl.sum(gradient, 1) / width
    result = (gradient - unit * along[:, None] - middle[:, None]) * scale[:, None]
    if passes:
        result += tl.load(to_total + place, mask=inside, other=0.0)
    result = tl.where(inside, result, 0.0)
    tl.store(to_values + place, result, mask=inside)
    if adds:
        room = exists[:, None] & (column < change_width)[None, :]
        places = row[:, None] * change_width + column[None, :]
        tl.store(to_change + places, result.to(to_change.dtype.element_ty), mask=room)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        change: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        dtype: torch.dtype,
        normed_width: int,
    ) -> tuple[Tensor, Tensor]:
        values = values.contiguous()
        change = None if change is None else change.contiguous()
        width, rows = values.shape[-1], values[..., 0].numel()
        ctx.sizes = {
            "width": width,
            "change_width": width if change is None else change.shape[-1],
            "normed_width": normed_width,
            "adds": change is not None,
            "block": triton.next_power_of_2(max(width, normed_width)),
            "height": ROWS,
        }
        ctx.change_like = None if change is None else (change.shape, change.dtype)
        total = values if change is None else torch.empty_like(values)
        normed = values.new_empty(*values.shape[:-1], normed_width, dtype=dtype)
        means, scales = values.new_empty(rows), values.new_empty(rows)
        _forward[(triton.cdiv(rows, ROWS),)](
            values, values if change is None else change, weight, bias, total, normed, means, scales, rows, eps,
            **ctx.sizes,
        )  # fmt: skip
        ctx.save_for_backward(total, means, scales, weight)
        ctx.set_materialize_grads(False)
        return total, normed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_total: Tensor | None, to_normed: Tensor | None) -> tuple[Tensor | None, ...]:
        total, means, scales, weight = ctx.saved_tensors
        if to_normed is None:  # only the sum was used
            to_normed = total.new_zeros(*total.shape[:-1], ctx.sizes["normed_width"])
        rows, to_values = len(means), torch.empty_like(total)
        to_change = None if ctx.change_like is None else total.new_empty(ctx.change_like[0], dtype=ctx.change_like[1])
        _backward[(triton.cdiv(rows, ROWS),)](
            total, means, scales, weight, to_normed.contiguous(),
            total if to_total is None else to_total.contiguous(), to_values,
            total if to_change is None else to_change, rows, passes=to_total is not None, **ctx.sizes,
        )  # fmt: skip
        return to_values, to_change, None, None, None, None, None


def add_norm(
    values: Tensor,
    change: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dtype: torch.dtype,
    normed_width: int | None = None,
) -> tuple[Tensor, Tensor]:
    """values + change, and its LayerNorm.

    Args:
        values: (..., width) float32.
        change: (..., at least width), what is beyond is ignored; None adds nothing.
        weight: (width,) float32 of the norm; it takes no gradients.
        bias: (width,) float32 of the norm; it takes no gradients.
        eps: Of the norm.
        dtype: Of what is normalised.
        normed_width: It is padded with zeros to this; None pads nothing.

    Returns:
        (..., width) float32 and (..., normed_width) in ``dtype``.
    """
    wide = values.shape[-1] if normed_width is None else normed_width
    found: tuple[Tensor, Tensor] = _AddNorm.apply(values, change, weight, bias, eps, dtype, wide)
    return found
