"""What the machine can do at best: plain matrix products, measured in the same run and next to every repetition."""

from __future__ import annotations

import time

import torch

CUBES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
"""Sides of the products per kind of device; the best of them counts, for which one is faster depends on the caches."""


class Ceiling:
    """GFLOP/s of a matrix product of one number type on one device, with the threads that torch has.

    Args:
        device: to run on. dtype: of the factors. seconds: for one measurement, at least one product of each size.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, seconds: float = 0.15) -> None:
        self.device, self.dtype, self.seconds = device, dtype, seconds
        sides = CUBES.get(device.type, CUBES["cpu"])
        self._factors = [torch.randn(2, side, side, device=device).to(dtype) for side in sides]
        self._out = [torch.empty_like(pair[0]) for pair in self._factors]
        self.measure()  # the first products are slow: memory is touched, kernels are chosen

    def measure(self) -> float:
        """The best of repeated calls, GFLOP/s."""
        best = 0.0
        for pair, out in zip(self._factors, self._out, strict=True):
            begin = time.perf_counter()
            while True:
                seconds = self._product(pair, out)
                best = max(best, 2 * len(out) ** 3 / seconds / 1e9)
                if time.perf_counter() - begin > self.seconds / len(self._factors):
                    break
        return best

    def _product(self, pair: torch.Tensor, out: torch.Tensor) -> float:
        synchronize(self.device)
        begin = time.perf_counter()
        torch.mm(pair[0], pair[1], out=out)
        synchronize(self.device)
        return time.perf_counter() - begin


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done everything it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
