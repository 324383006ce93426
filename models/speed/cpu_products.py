"""Linear maps in float32 on a CPU, by whichever of torch's libraries is faster there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.machine import cpu_info

LIBRARIES = ("auto", "torch", "onednn")
ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # None: a torch without oneDNN
WORTH = 100_000  # entries of a weight; below, the calls cost more than the arithmetic


class _Choice:
    """Of the whole process, as the number of threads is."""

    onednn: bool | None = None  # None: not asked yet


def choose_library(name: str) -> None:
    """What computes float32 linear maps on a CPU.

    Args:
        name: "torch" is torch's own choice, which is MKL in its usual builds; "onednn" is the other library that torch
            carries; "auto" takes oneDNN on CPUs with AVX-512 that are not Intel's: MKL uses half of their width.

    Raises:
        ValueError: If there is no such library.
    """
    if name not in LIBRARIES:
        raise ValueError(f"cpu_products must be one of {', '.join(LIBRARIES)}, got {name!r}")
    available = torch.backends.mkldnn.is_available() and ONEDNN_LINEAR is not None
    if name == "onednn" and not available:
        raise ValueError("cpu_products=onednn: this torch was built without oneDNN; use cpu_products=auto")
    _Choice.onednn = available and (name == "onednn" or (name == "auto" and _mkl_is_slow()))


@contextlib.contextmanager
def library(name: str) -> Iterator[None]:
    """``choose_library`` for a while."""
    before = _Choice.onednn
    choose_library(name)
    try:
        yield
    finally:
        _Choice.onednn = before


def _mkl_is_slow() -> bool:
    processors = cpu_info() if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else ""
    return bool(processors) and "GenuineIntel" not in processors


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``: values (..., K), weight (N, K), bias (N,) -> (..., N), differentiable once."""
    if _takes_onednn(values, weight):
        found: Tensor = _Linear.apply(values, weight, bias)
        return found
    return F.linear(values, weight, bias)


def _takes_onednn(values: Tensor, weight: Tensor) -> bool:
    if values.device.type != "cpu" or not values.numel() or weight.numel() < WORTH or torch.compiler.is_compiling():
        return False
    if _Choice.onednn is None:
        choose_library("auto")
    float32 = values.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return bool(_Choice.onednn) and float32


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
    assert ONEDNN_LINEAR is not None, "choose_library makes sure of it"
    found: Tensor = ONEDNN_LINEAR(values, weight, bias, "none", [], "")
    return found
