"""What lies between a transformer's matrix products, in one pass over memory each way: residual and norm, GELU."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from models.speed.cpu_kernels.build import call, load
from models.speed.cpu_kernels.masks import Mask, drawn

TYPES = (torch.float32, torch.bfloat16)
CHUNK = 32  # rows whose gradients of a norm's weights are summed up first, as in ``between.cpp``


def add_norm(
    values: Tensor, change: Tensor | None, norm: nn.LayerNorm, dtype: torch.dtype, p: float = 0.0
) -> tuple[Tensor, Tensor]:
    """values + dropout(change), and its LayerNorm.

    Args:
        values: (..., width) float32.
        change: Of the same shape, float32 or bf16; None adds nothing.
        norm: Over the last axis, with weights in float32.
        dtype: Of what is normalised.
        p: Probability that an entry of ``change`` is dropped.

    Returns:
        (..., width) float32 and the same in ``dtype``; differentiable once.
    """
    found: tuple[Tensor, Tensor] = _AddNorm.apply(values, change, norm.weight, norm.bias, norm.eps, dtype, drawn(p))
    return found


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, change: Tensor | None, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype,
        mask: Mask,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        values = values.contiguous()
        change = None if change is None else change.contiguous()
        total = values if change is None else torch.empty_like(values)
        normed = torch.empty(values.shape, dtype=dtype)
        width = values.shape[-1]
        means, scales = torch.empty(2, values.numel() // width)
        _norm(values, change, total, normed, means, scales, weight, bias, None, None, None, None, eps, mask)
        ctx.save_for_backward(total, means, scales, weight)
        ctx.mask, ctx.change = mask, None if change is None else change.dtype
        ctx.dtype = dtype
        ctx.set_materialize_grads(False)
        return total, normed

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_total: Tensor | None, to_normed: Tensor | None) -> tuple[Tensor | None, ...]:
        total, means, scales, weight = ctx.saved_tensors
        to_normed = torch.zeros(total.shape, dtype=ctx.dtype) if to_normed is None else to_normed.contiguous()
        to_total = None if to_total is None else to_total.contiguous()
        to_values, to_change = torch.empty_like(total), None
        if ctx.change is not None:  # what is neither dropped nor rounded gets the same gradient
            same = ctx.change == torch.float32 and not ctx.mask[1]
            to_change = to_values if same else torch.empty(total.shape, dtype=ctx.change)
        trains = ctx.needs_input_grad[2]
        to_weights = torch.zeros(-(-len(means) // CHUNK), 2, total.shape[-1]) if trains else None
        written = None if to_change is to_values else to_change
        _norm(
            total, written, total, to_normed, means, scales, weight, None, to_total, to_values, written, to_weights,
            None, ctx.mask,
        )  # fmt: skip
        to_weight, to_bias = (None, None) if to_weights is None else to_weights.sum(0)
        return to_values, to_change, to_weight, to_bias, None, None, None


def _norm(
    values: Tensor, change: Tensor | None, total: Tensor, normed: Tensor, means: Tensor, scales: Tensor,
    weight: Tensor, bias: Tensor | None, to_total: Tensor | None, to_values: Tensor | None, to_change: Tensor | None,
    to_weights: Tensor | None, eps: float | None, mask: Mask,
) -> None:  # fmt: skip
    """Fill ``Norm`` of ``between.cpp``, in its order; without ``eps`` it is the backward."""
    places = (values, change, total, normed, means, scales, weight, bias, to_total, to_values, to_change, to_weights)
    numbers = [0 if place is None else place.data_ptr() for place in places]
    halves = [place is not None and place.dtype == torch.bfloat16 for place in (change, normed)]
    numbers += [len(means), total.shape[-1], *halves, *mask]
    array = (ctypes.c_long * len(numbers))(*numbers)
    with call("add_norm"):
        load().add_norm(array, eps or 0.0, eps is None, torch.get_num_threads())


def gelu(values: Tensor, p: float = 0.0) -> Tensor:
    """dropout(x Phi(x)) of every entry, float32 or bf16; differentiable once.

    Args:
        values: Any shape.
        p: Probability that an entry is dropped.
    """
    found: Tensor = _Gelu.apply(values, drawn(p))
    return found


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Mask) -> Tensor:
        values = values.contiguous()
        out = torch.empty_like(values)
        slope = torch.empty_like(values) if ctx.needs_input_grad[0] else None
        numbers = [values.data_ptr(), out.data_ptr(), 0 if slope is None else slope.data_ptr(), values.numel()]
        numbers += [values.dtype == torch.bfloat16, *mask]
        array = (ctypes.c_long * len(numbers))(*numbers)
        with call("gelu"):
            load().gelu(array, torch.get_num_threads())
        ctx.save_for_backward(slope)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        with call("gelu"):
            return upstream * slope, None
