"""Linear maps in float32 on a CPU by oneDNN, which torch carries beside the library that it uses for them itself."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LIBRARIES = ("auto", "torch", "onednn")
ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # None: a torch without oneDNN


def has_onednn() -> bool:
    """Whether this torch can ask oneDNN for linear maps."""
    return torch.backends.mkldnn.is_available() and ONEDNN_LINEAR is not None


def check_onednn() -> None:
    """Refuse a library that is not there.

    Raises:
        ValueError: If this torch has none.
    """
    if not has_onednn():
        raise ValueError("speed.cpu_products=onednn: this torch was built without oneDNN; use speed.cpu_products=auto")


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``F.linear``: values (..., K), weight (N, K), bias (N,) -> (..., N), differentiable once.

    Torch computes what oneDNN does not: other types and devices, autocast, empty values, and what is being compiled.
    """
    if not _takes(values, weight):
        return F.linear(values, weight, bias)
    found: Tensor = _Linear.apply(values, weight, bias)
    return found


def _takes(values: Tensor, weight: Tensor) -> bool:
    if values.device.type != "cpu" or not values.numel() or torch.compiler.is_compiling():
        return False
    return values.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


class _Linear(torch.autograd.Function):
    """The map and its gradients as three products."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values if ctx.needs_input_grad[1] else None, weight)
        return _product(values, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, weight = ctx.saved_tensors
        to_values, to_weight, to_bias = ctx.needs_input_grad
        flat = gradient.reshape(-1, gradient.shape[-1])
        return (
            _product(gradient, weight.t(), None) if to_values else None,
            _product(flat.t(), values.reshape(-1, values.shape[-1]).t(), None) if to_weight else None,
            flat.sum(0) if to_bias else None,
        )


def _product(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    assert ONEDNN_LINEAR is not None, "has_onednn says so"
    found: Tensor = ONEDNN_LINEAR(values, weight, bias, "none", [], "")
    return found
