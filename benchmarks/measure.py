"""Timing with the machine's noise in mind: repeats, medians, and a ceiling measured in the same run."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Case:
    """Something to time.

    Attributes:
        name: what it is. unit: of the items. items: done by one call of ``run``.
        run: the work; it must leave nothing behind that changes the next call's work.
        counts_flops: whether the work is network arithmetic.
        plain: the same work done in the plain way, to compare with; timed in turn with ``run``.
    """

    name: str
    unit: str
    items: int
    run: Callable[[], object]
    counts_flops: bool = True
    plain: Callable[[], object] | None = None


@dataclass(frozen=True)
class Timing:
    """One line of the table.

    Attributes:
        items_per_second: from the median of the repeats. gflop_per_item: counted; 0 where nothing is counted.
        fraction: of the matrix-product ceiling. peak_gb: largest resident memory of the process so far.
        speedup: over the plain way; 0 where there is none.
    """

    name: str
    unit: str
    items_per_second: float
    gflop_per_item: float
    gflops: float
    fraction: float
    peak_gb: float
    speedup: float = 0.0


def matmul_ceiling(device: torch.device, size: int = 1024, seconds: float = 1.0) -> float:
    """GFLOP/s of a plain float32 matrix product, the best of repeated calls."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    a @ b
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        best = min(best, _timed(lambda: a @ b, device))
    return 2 * size**3 / best / 1e9


def measure(case: Case, device: torch.device, seconds: float) -> Timing:
    """Time a case for about ``seconds``, after one warm-up, between two measurements of the ceiling."""
    before = matmul_ceiling(device, seconds=0.3)
    with FlopCounterMode(display=False) as counter:
        case.run()
    flops = counter.get_total_flops() if case.counts_flops else 0
    times: list[float] = []
    plain: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < seconds:
        times.append(_timed(case.run, device))
        if case.plain is not None:
            plain.append(_timed(case.plain, device))
    ceiling = max(before, matmul_ceiling(device, seconds=0.3))
    median = statistics.median(times)
    gflops = flops / median / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**30
    rate, each = case.items / median, flops / case.items / 1e9
    speedup = statistics.median(plain) / median if plain else 0.0
    return Timing(case.name, case.unit, rate, each, gflops, gflops / ceiling, peak, speedup)


def _timed(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
