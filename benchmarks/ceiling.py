"""What the machine can do at best: matrix products, measured in the same run and next to every repetition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from models.speed.onednn import linear

CUBES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
"""Sides of the products per kind of device; the best of them counts, for which one is faster depends on the caches."""

of_process = False  # what other programs take then counts less, and what waits counts nothing


def clock() -> float:
    """Seconds of this process's time on the processors if ``of_process`` says so, else of a clock on the wall."""
    return time.process_time() if of_process else time.perf_counter()


class Peaks(NamedTuple):
    """GFLOP/s of ``torch.mm``, and of the faster of it and oneDNN's product."""

    torch_mm: float
    best: float

    def highest(self, other: Peaks) -> Peaks:
        """Take the higher rate of each product."""
        return Peaks(max(self.torch_mm, other.torch_mm), max(self.best, other.best))


class Ceiling:
    """Rates of a matrix product of one number type on one device, with the threads that torch has.

    Args:
        device: To run on.
        dtype: Of the factors.
        seconds: For one measurement, at least one product of each kind.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> None:
        self.device, self.dtype, self.seconds = device, dtype, seconds
        sides = CUBES.get(device.type, CUBES["cpu"])
        self._factors = [torch.randn(2, side, side, device=device).to(dtype) for side in sides]
        self._others = device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()
        self.measure()  # the first products are slow: memory is touched, kernels are chosen

    def measure(self) -> Peaks:
        """The best of repeated calls."""
        mm = self._best(torch.mm)
        if not self._others:
            return Peaks(mm, mm)
        with torch.no_grad():
            return Peaks(mm, max(mm, self._best(linear)))

    def _best(self, product: Callable[[Tensor, Tensor], Tensor]) -> float:
        best, share = 0.0, self.seconds / len(self._factors) / (1 + self._others)
        for first, second in self._factors:
            begin = clock()
            while True:
                best = max(best, 2 * len(first) ** 3 / self._seconds(product, first, second) / 1e9)
                if clock() - begin > share:
                    break
        return best

    def _seconds(self, product: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> float:
        synchronize(self.device)
        begin = clock()
        product(first, second)
        synchronize(self.device)
        return clock() - begin


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done everything it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
