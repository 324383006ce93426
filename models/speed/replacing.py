"""Replacing modules of a built network by others that compute the same, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from models.networks.dinov2_vit import SelfAttention
from models.networks.vit import Attention, Transformer
from models.speed.attention import FastAttention, KernelSelfAttention
from models.speed.cpu_transformer import KernelTransformer
from models.speed.dropout import FastDropout
from models.speed.linear import ALIGNED, OneDnnLinear, PaddedLinear, SlicedLinear

M = TypeVar("M", bound=nn.Module)
LARGE = 50_000  # entries of the largest weight of a transformer from which on our kernels between its products are
WORTH = 100_000  # entries of a weight from which on oneDNN is: below, the calls cost more than the arithmetic
PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    FastAttention: Attention,
    KernelSelfAttention: SelfAttention,
    KernelTransformer: Transformer,
    FastDropout: nn.Dropout,
    OneDnnLinear: nn.Linear,
    PaddedLinear: nn.Linear,
    SlicedLinear: nn.Linear,
}
"""Our module -> the one in whose place it stands; both have the same tensors and attributes."""


def make_fast(
    model: nn.Module, slices: bool = True, kernels: Sequence[torch.dtype] = (), between: bool = False,
    onednn: bool = False, pads: bool = False, dropout: bool = False,
) -> None:  # fmt: skip
    """Put our modules in the place of plain ones. Each stays the same object, with its name and its tensors.

    Args:
        model: A network, which is changed.
        slices: Whether attention computes only those queries that are wanted.
        kernels: Types of numbers for which our own kernel computes attention on a CPU.
        between: Whether our own kernels compute what lies between the products of large transformers on a CPU.
        onednn: Whether large linear maps are computed by oneDNN.
        pads: Whether linear maps of odd widths are padded where a GPU multiplies 16-bit numbers under autocast.
        dropout: Whether masks on a CPU are drawn our way.
    """
    make_plain(model)
    if not (slices or kernels or between or onednn or pads or dropout):
        return
    for module in model.modules():
        kind = type(module)
        if kind is Attention and (slices or kernels or between or dropout):
            module.__class__ = FastAttention
            setattr(module, "kernels", tuple(kernels))  # noqa: B010  (mypy holds it for what it was)
        elif kind is Transformer and between and is_large(module):
            module.__class__ = KernelTransformer
        elif kind is SelfAttention and kernels:
            module.__class__ = KernelSelfAttention
            setattr(module, "kernels", tuple(kernels))  # noqa: B010
        elif kind is nn.Dropout and dropout:
            module.__class__ = FastDropout
        elif isinstance(module, nn.Linear) and kind is nn.Linear:
            module.__class__ = _linear(module, onednn, pads)


def _linear(layer: nn.Linear, onednn: bool, pads: bool) -> type[nn.Linear]:
    if pads and (layer.in_features % ALIGNED or layer.out_features % ALIGNED):
        return PaddedLinear
    return OneDnnLinear if onednn and layer.weight.numel() >= WORTH else SlicedLinear


def is_large(model: nn.Module) -> bool:
    """Whether arithmetic takes more of its time than calls do: it has a linear map of many weights."""
    return any(isinstance(module, nn.Linear) and module.weight.numel() >= LARGE for module in model.modules())


def make_plain(model: nn.Module) -> None:
    """Put the plain modules back."""
    for module in model.modules():
        module.__class__ = PLAIN.get(type(module), type(module))


def replace_in(model: nn.Module, kind: type[M], make: Callable[[M], nn.Module]) -> None:
    """Put ``make(module)`` in the place of every module of a ``kind`` within ``model``."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, kind):
                setattr(module, name, make(child))
