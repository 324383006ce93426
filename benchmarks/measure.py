"""Timing with the machine's noise in mind: repeats, medians, and a ceiling measured next to each repeat."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from benchmarks.ceiling import Ceiling, Peaks, clock, synchronize
from benchmarks.memory import peak_gb
from models.flops import count_flops

Run = Callable[[], object]
LONG = 45.0
"""Seconds of a GPU's first call, kernels and all, from which on it is the only one."""


@dataclass(frozen=True)
class Work:
    """What a case does, once it is built.

    Attributes:
        run: The work; it must leave nothing behind that changes the next call's work.
        items: Done by one call of ``run``.
        unit: Of the items.
        flops: Of one call, by formula (``models/flops.py``); 0: what torch counts is taken, if ``counts``.
        counts: Whether the work is network arithmetic.
        plain: Builds other ways of doing the same work, by name, to be timed in turn with ``run``; called late, so
            that their copies of the weights are in no peak but their own.
        whole: How many times the arithmetic of ``run`` the whole work is, of which ``run`` is a slice; 1: all of it.
        sliced: Of what the slice consists.
        plain_share: The part of the work that the plain ways do, which take too long for all of it.
        parts: Finds out what share of the time each part of the work takes.
        in_a_row: Calls that are timed one after the other, with no ceiling between them, so that their slowest say
            something; 0: as many as the pace says, each beside a ceiling.
    """

    run: Run
    items: float
    unit: str
    flops: float = 0.0
    counts: bool = True
    plain: Callable[[], Mapping[str, Run]] | None = None
    whole: float = 1.0
    sliced: str = ""
    plain_share: float = 1.0
    parts: Callable[[], dict[str, float]] | None = None
    in_a_row: int = 0


@dataclass(frozen=True)
class Case:
    """A piece of work to time.

    Attributes:
        name: What it is.
        build: Makes it ready, and clears up afterwards.
        dtype: Of its arithmetic, and so of the ceiling it is compared with.
    """

    name: str
    build: Callable[[], contextlib.AbstractContextManager[Work]]
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Pace:
    """How long a case is repeated.

    Attributes:
        seconds, repeats: At least.
        plain: Whether with the plain ways, until that has taken ``plain_seconds``.
    """

    seconds: float = 2.0
    repeats: int = 3
    plain: bool = True
    plain_seconds: float = 60.0


@dataclass(frozen=True)
class Timing:
    """One line of the table.

    Attributes:
        seconds: Of one call, the median of the repeats.
        items_per_second: Of these.
        gflop_per_item: By formula.
        executed: What torch counted in one call over that; 0 where it counts nothing.
        gflops: By formula, per second.
        ceiling: Of ``torch.mm``, GFLOP/s, median of those next to the repeats.
        fraction: Median over the repeats of each one's share of the higher of the ceilings before and after it.
        parts: Share of the time that each part of the work takes.
        best_ceiling, best_fraction: The same of the fastest product there is, see ``benchmarks/ceiling.py``.
        peak_gb: Of this case alone, see ``benchmarks/memory.py``.
        ratios: By what factor each plain way takes longer; medians over repeats.
        plain_peaks: Their peak_gb.
        p99: Seconds that 99 % of the calls take at most, where many were timed in a row; else 0.
        whole_seconds: Of the whole work where ``sliced`` says that only a slice was timed, by arithmetic; else 0.
    """

    name: str
    unit: str
    seconds: float
    items_per_second: float
    gflop_per_item: float = 0.0
    executed: float = 0.0
    gflops: float = 0.0
    ceiling: float = 0.0
    fraction: float = 0.0
    peak_gb: float = 0.0
    ratios: dict[str, float] = field(default_factory=dict)
    plain_peaks: dict[str, float] = field(default_factory=dict)
    whole_seconds: float = 0.0
    sliced: str = ""
    best_ceiling: float = 0.0
    best_fraction: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    p99: float = 0.0


@dataclass(frozen=True)
class _Repeat:
    seconds: float
    ceiling: Peaks
    plain: dict[str, float]


def measure(case: Case, device: torch.device, pace: Pace, ceilings: dict[torch.dtype, Ceiling] | None = None) -> Timing:
    """Build, count, warm up and time one case.

    Args:
        ceilings: Made by earlier cases of the run, and extended.
    """
    known = {} if ceilings is None else ceilings
    if case.dtype not in known:
        known[case.dtype] = Ceiling(device, case.dtype)
    with case.build() as work:
        begin = time.perf_counter()
        executed, peak = _counted(work, device)
        first = time.perf_counter() - begin
        if device.type == "cuda" and first > LONG:
            return _timing(case, work, executed, peak, {}, [_Repeat(first, known[case.dtype].measure(), {})])
        ways = dict(work.plain()) if work.plain is not None and pace.plain else {}
        plain_peaks = {name: peak_gb(way, device) for name, way in ways.items()}
        take = _in_a_row if work.in_a_row else _repeats
        repeats = list(take(work, ways, device, pace, known[case.dtype]))
        return _timing(case, work, executed, peak, plain_peaks, repeats)


def _counted(work: Work, device: torch.device) -> tuple[float, float]:
    """What torch counts in one run, and its peak memory."""
    peaks: list[float] = []

    def run() -> None:
        peaks.append(peak_gb(work.run, device))

    if work.counts and device.type != "cuda":  # torch does not count what a CUDA graph replays
        return count_flops(run), peaks[0]
    return 0.0, peak_gb(work.run, device)


def _in_a_row(
    work: Work, ways: Mapping[str, Run], device: torch.device, pace: Pace, ceiling: Ceiling
) -> Iterator[_Repeat]:
    """Time as many calls as the work wants, a quick pace ten."""
    before = ceiling.measure()
    seconds = [_timed(work.run, device) for _ in range(work.in_a_row if pace.seconds else 10)]
    beside = before.highest(ceiling.measure())
    yield from (_Repeat(each, beside, {}) for each in seconds)


def _repeats(
    work: Work, ways: Mapping[str, Run], device: torch.device, pace: Pace, ceiling: Ceiling
) -> Iterator[_Repeat]:
    own, plain, number, before = 0.0, 0.0, 0, ceiling.measure()
    while number < pace.repeats or own < pace.seconds:
        seconds = _timed(work.run, device)
        after = ceiling.measure()
        in_turn = ways if plain < pace.plain_seconds else {}
        others = {name: _timed(way, device) for name, way in in_turn.items()}
        yield _Repeat(seconds, before.highest(after), others)
        # what other programs do meanwhile changes in seconds: after a plain way, the ceiling is measured anew
        before = ceiling.measure() if others else after
        own, plain, number = own + seconds, plain + sum(others.values()), number + 1


def _timing(
    case: Case, work: Work, executed: float, peak: float, plain_peaks: dict[str, float], repeats: list[_Repeat]
) -> Timing:
    flops = work.flops or executed
    seconds = statistics.median(repeat.seconds for repeat in repeats)
    return Timing(
        name=case.name,
        unit=work.unit,
        seconds=seconds,
        items_per_second=work.items / seconds,
        gflop_per_item=flops / work.items / 1e9,
        executed=executed / flops if flops else 0.0,
        gflops=flops / seconds / 1e9,
        ceiling=statistics.median(each.ceiling.torch_mm for each in repeats),
        fraction=statistics.median(flops / each.seconds / 1e9 / each.ceiling.torch_mm for each in repeats),
        best_ceiling=statistics.median(each.ceiling.best for each in repeats),
        best_fraction=statistics.median(flops / each.seconds / 1e9 / each.ceiling.best for each in repeats),
        peak_gb=peak,
        ratios={
            name: statistics.median(each.plain[name] / each.seconds for each in repeats if each.plain)
            / work.plain_share
            for name in plain_peaks
        },
        plain_peaks=plain_peaks,
        whole_seconds=seconds * work.whole if work.sliced else 0.0,
        sliced=work.sliced,
        parts={} if work.parts is None else work.parts(),
        p99=quantile([repeat.seconds for repeat in repeats], 0.99) if work.in_a_row else 0.0,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that at least so large a ``share`` of them does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _timed(run: Run, device: torch.device) -> float:
    synchronize(device)
    begin = clock()
    run()
    synchronize(device)
    return clock() - begin
