"""The numbers of a training step, on their way from the device to the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

OBJECTIVE = "objective"


class NonFiniteLossError(RuntimeError):
    """Training stopped before an update that would have destroyed the weights."""


class StepNumbers(Mapping[str, float]):
    """The losses of a step, which leave the device in one transfer that nobody waits for before it is read.

    Every ``item()`` makes the processor wait for all that a GPU still has to do, and the GPU then for the processor.

    Args:
        values: Scalars by name; tensors of any device, or numbers.
        objective: What is minimised; not among the values, but it travels with them.
        own: What the samples of this one of several processes contribute to it; None: all of it.
    """

    def __init__(self, values: Mapping[str, Tensor | float], objective: Tensor, own: Tensor | None = None) -> None:
        self.own = (objective if own is None else own).detach()
        self._numbers = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)} | {OBJECTIVE: objective}
        self._order, self._names = [*values], [*tensors]
        device = objective.device
        stacked = torch.stack([tensor.detach().to(device, torch.float32) for tensor in tensors.values()])
        self._arrived: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._values = torch.empty(len(tensors), pin_memory=True).copy_(stacked, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            self._values = stacked
        self._read: dict[str, float] | None = None

    @property
    def objective(self) -> float:
        """The loss that was minimised."""
        return self._all()[OBJECTIVE]

    def __getitem__(self, name: str) -> float:
        """A number; waits until it is there."""
        if name not in self._order:
            raise KeyError(name)
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def _all(self) -> dict[str, float]:
        if self._read is None:
            if self._arrived is not None:
                self._arrived.synchronize()
            self._read = {**self._numbers, **dict(zip(self._names, self._values.tolist(), strict=True))}
        return self._read


@dataclass(frozen=True)
class FinishedStep:
    """A step whose numbers may still be on their way.

    Attributes:
        step: Its number, from 1.
        position: The same within the epoch.
        trajectories: (B,) of its batch.
        numbers: Losses and the like.
        speed: How fast it went.
    """

    step: int
    position: int
    trajectories: Tensor
    numbers: StepNumbers
    speed: dict[str, float]
