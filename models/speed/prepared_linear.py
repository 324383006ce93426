"""Matrix products with weights prepared for planning: cast to the type of the product, padded to good widths."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.speed.cpu_products import linear

ALIGNED = 8  # entries of bf16 are 16 bytes, what a GPU's bulk copies read


class Linear(nn.Linear):
    """``nn.Linear`` by the faster library, of which a part of the outputs can be asked for.

    Attributes:
        pads: whether widths are padded where a GPU multiplies 16-bit numbers under autocast, see ``PreparedLinear``.
    """

    pads = False

    def forward(self, values: Tensor, rows: slice | None = None) -> Tensor:
        """(..., in_features) -> (..., number of ``rows``), all outputs if none are named."""
        if self.pads and rows is None and values.is_cuda and torch.is_autocast_enabled("cuda"):
            return self.forward_padded(values, torch.get_autocast_dtype("cuda"))
        if rows is None:
            return linear(values, self.weight, self.bias)
        return linear(values, self.weight[rows], None if self.bias is None else self.bias[rows])

    def forward_padded(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """As ``forward``, multiplied in ``dtype`` with zeros added to widths that are no multiple of 8."""
        wider, taller = -self.in_features % ALIGNED, -self.out_features % ALIGNED
        weight = F.pad(self.weight.to(dtype), (0, wider, 0, taller))
        bias = None if self.bias is None else F.pad(self.bias.to(dtype), (0, taller))
        found = F.linear(F.pad(values.to(dtype), (0, wider)), weight, bias)
        return found[..., : self.out_features] if taller else found


def choose_padding(model: nn.Module, pads: bool) -> None:
    """Let every ``Linear`` of a model pad its widths, or none; those that need no padding never do."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.pads = pads and bool(module.in_features % ALIGNED or module.out_features % ALIGNED)


class PreparedLinear(nn.Module):
    """The same product with weights that are not trained: cast once instead of at every call, and padded with zeros.

    A width like 404 makes rows that start at addresses which a GPU's fastest kernels cannot read. Zeros change no sum.

    Args:
        like: gives the sizes; its weights come with ``read``.
        dtype: of the weights. multiple: input and output widths are padded to one of it; 1 pads nothing.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, like: nn.Linear, dtype: torch.dtype, multiple: int = 1) -> None:
        super().__init__()
        self.in_features, self.out_features = like.in_features, like.out_features
        inputs, outputs = (-(-width // multiple) * multiple for width in (like.in_features, like.out_features))
        zeros = like.weight.new_zeros
        self.register_buffer("weight", zeros(outputs, inputs, dtype=dtype))
        self.register_buffer("bias", None if like.bias is None else zeros(outputs, dtype=dtype))
        self.read(like)

    @torch.no_grad()
    def read(self, source: nn.Linear) -> None:
        """Take over the weights of ``source``, in place."""
        self.weight[: self.out_features, : self.in_features] = source.weight
        if self.bias is not None:
            self.bias[: self.out_features] = source.bias

    def forward(self, values: Tensor, rows: slice | None = None) -> Tensor:
        """As ``Linear``; a view of a wider tensor where the output is padded. ``values`` may be padded already."""
        if rows is not None:
            first, last, _ = rows.indices(self.out_features)
            return F.linear(
                self._wide(values), self.weight[first:last], None if self.bias is None else self.bias[first:last]
            )
        found = self.padded(values)
        return found if found.shape[-1] == self.out_features else found[..., : self.out_features]

    def padded(self, values: Tensor) -> Tensor:
        """As ``forward``, with all outputs; those beyond ``out_features`` are zero."""
        return F.linear(self._wide(values), self.weight, self.bias)

    def _wide(self, values: Tensor) -> Tensor:
        missing = self.weight.shape[1] - values.shape[-1]
        return F.pad(values, (0, missing)) if missing else values
