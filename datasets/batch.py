"""The batch of samples that a training step receives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B samples of F consecutive model frames; frame f lies ``f * frameskip`` raw steps after the first.

    Attributes:
        proprio: (B, F, E) float32, z-scored.
        actions: (B, F, A) float32, z-scored; the block of frame f holds the ``frameskip`` raw actions from it on.
        states: (B, F, S) float64, raw: where a simulator must start to continue from a frame.
        trajectory: (B,) int64 number of the trajectory in its data set.
        start: (B,) int64 raw step of the first frame.
        layouts: Name -> (B, ...), what the simulator must be told about each episode.
        visual: (B, F, 3, H, W) images, uint8 or float32, 0..255; None where latents stand in or nothing is seen.
        latents: (B, F, P, D) encoded frames instead of images; None if there are none.
    """

    proprio: Tensor
    actions: Tensor
    states: Tensor
    trajectory: Tensor
    start: Tensor
    layouts: dict[str, Tensor] = field(default_factory=dict)
    visual: Tensor | None = None
    latents: Tensor | None = None

    def __len__(self) -> int:
        return len(self.actions)

    def __getitem__(self, index: slice | Tensor) -> Batch:
        """Choose samples by a slice, or by an index or mask tensor (B', or (B,) bool)."""
        if not isinstance(index, slice | Tensor):
            raise TypeError(f"a batch takes a slice or an index tensor (a number would drop B), got {index!r}")
        return self._map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Copy the samples to another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Copy the samples to page-locked memory; called by ``DataLoader(pin_memory=True)``."""
        return self._map(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory until ``stream`` is done with it, though another one filled it."""
        self._map(lambda tensor: (tensor.record_stream(stream), tensor)[1])  # type: ignore[func-returns-value]

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        def changed(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: change(tensor) for name, tensor in value.items()}
            return None if value is None else change(value)

        return Batch(**{each.name: changed(getattr(self, each.name)) for each in fields(self)})
