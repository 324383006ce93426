"""Linear maps that take the place of ``nn.Linear`` in a built network, with its weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.speed import onednn

ALIGNED = 8  # entries of bf16 are 16 bytes, what a GPU's bulk copies read


class SlicedLinear(nn.Linear):
    """A linear map of which a part of the outputs can be asked for."""

    def forward(self, values: Tensor, rows: slice | None = None) -> Tensor:
        """Map (..., in_features) to (..., number of ``rows``), all outputs if none are named."""
        if rows is None:
            return self.product(values, self.weight, self.bias)
        return self.product(values, self.weight[rows], None if self.bias is None else self.bias[rows])

    def product(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute ``F.linear``."""
        return F.linear(values, weight, bias)


class OneDnnLinear(SlicedLinear):
    """A linear map by oneDNN, see ``models/speed/onednn.py``."""

    def product(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute ``F.linear``."""
        return onednn.linear(values, weight, bias)


class PaddedLinear(SlicedLinear):
    """A linear map for training on a GPU: under autocast, widths are padded with zeros to a multiple of 8.

    A width like 404 makes rows that start at addresses which a GPU's fastest kernels cannot read. Zeros change no sum.
    """

    def forward(self, values: Tensor, rows: slice | None = None) -> Tensor:
        """See ``SlicedLinear.forward``."""
        if rows is None and values.is_cuda and torch.is_autocast_enabled("cuda"):
            return self.padded(values, torch.get_autocast_dtype("cuda"))
        return super().forward(values, rows)

    def padded(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """Multiply in ``dtype``, padded."""
        wider, taller = -self.in_features % ALIGNED, -self.out_features % ALIGNED
        weight = F.pad(self.weight.to(dtype), (0, wider, 0, taller))
        bias = None if self.bias is None else F.pad(self.bias.to(dtype), (0, taller))
        found = F.linear(F.pad(values.to(dtype), (0, wider)), weight, bias)
        return found[..., : self.out_features] if taller else found


class PreparedLinear(nn.Module):
    """A linear map for planning, whose weights are not trained: they are cast and padded once, not at every call.

    Args:
        like: Gives the sizes and the weights.
        dtype: Of the weights.
        multiple: Input and output widths are padded to one of it; 1 pads nothing.
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
        """See ``SlicedLinear.forward``; a view of a wider tensor where the output is padded.

        ``values`` may be padded already.
        """
        if rows is not None:
            first, last, _ = rows.indices(self.out_features)
            return F.linear(
                self._wide(values), self.weight[first:last], None if self.bias is None else self.bias[first:last]
            )
        found = self.padded(values)
        return found if found.shape[-1] == self.out_features else found[..., : self.out_features]

    def padded(self, values: Tensor) -> Tensor:
        """Compute ``forward`` with all outputs; those beyond ``out_features`` are zero."""
        return F.linear(self._wide(values), self.weight, self.bias)

    def _wide(self, values: Tensor) -> Tensor:
        missing = self.weight.shape[1] - values.shape[-1]
        return F.pad(values, (0, missing)) if missing else values
