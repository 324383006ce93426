"""Timing with the machine's noise in mind: repeats, medians, and a ceiling measured next to each repeat."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ceiling import Ceiling, synchronize
from benchmarks.memory import peak_gb

Run = Callable[[], object]


@dataclass(frozen=True)
class Work:
    """What a case does, once it is built.

    Attributes:
        run: the work; it must leave nothing behind that changes the next call's work.
        items: done by one call of ``run``. unit: of the items.
        flops: of one call, by formula (``benchmarks/flops.py``); 0: what torch counts is taken, if ``counts``.
        counts: whether the work is network arithmetic.
        plain: builds other ways of doing the same work, by name, to be timed in turn with ``run``; called late, so
            that their copies of the weights are in no peak but their own.
        whole: how many times the arithmetic of ``run`` the whole work is, of which ``run`` is a slice; 1: all of it.
        sliced: of what the slice consists.
    """

    run: Run
    items: float
    unit: str
    flops: float = 0.0
    counts: bool = True
    plain: Callable[[], Mapping[str, Run]] | None = None
    whole: float = 1.0
    sliced: str = ""


@dataclass(frozen=True)
class Case:
    """Something to time.

    Attributes:
        name: what it is. build: makes it ready, and clears up afterwards.
        dtype: of its arithmetic, and so of the ceiling it is compared with.
    """

    name: str
    build: Callable[[], contextlib.AbstractContextManager[Work]]
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Pace:
    """How long a case is repeated: at least ``repeats`` times and ``seconds``; ``plain``: with the plain ways, too."""

    seconds: float = 2.0
    repeats: int = 3
    plain: bool = True


@dataclass(frozen=True)
class Timing:
    """One line of the table.

    Attributes:
        seconds: of one call, the median of the repeats. items_per_second: of these.
        gflop_per_item: by formula. executed: what torch counted in one call over that; 0 where it counts nothing.
        gflops: by formula, per second. ceiling: median of the ceilings next to the repeats, GFLOP/s.
        fraction: median over the repeats of each one's share of the higher of the ceilings before and after it.
        peak_gb: of this case alone, see ``benchmarks/memory.py``.
        ratios: by what factor each plain way takes longer; medians over repeats. plain_peaks: their peak_gb.
        whole_seconds: of the whole work where ``sliced`` says that only a slice was timed, by arithmetic; else 0.
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


@dataclass(frozen=True)
class _Repeat:
    seconds: float
    ceiling: float
    plain: dict[str, float]


def measure(case: Case, device: torch.device, pace: Pace, ceilings: dict[torch.dtype, Ceiling] | None = None) -> Timing:
    """Build, count, warm up and time one case.

    Args:
        ceilings: made by earlier cases of the run, and extended.
    """
    known = {} if ceilings is None else ceilings
    if case.dtype not in known:
        known[case.dtype] = Ceiling(device, case.dtype)
    with case.build() as work:
        executed = _executed(work.run) if work.counts else 0.0
        peak = peak_gb(work.run, device)
        ways = dict(work.plain()) if work.plain is not None and pace.plain else {}
        plain_peaks = {name: peak_gb(way, device) for name, way in ways.items()}
        repeats = list(_repeats(work.run, ways, device, pace, known[case.dtype]))
        return _timing(case, work, executed, peak, plain_peaks, repeats)


def _executed(run: Run) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _repeats(
    run: Run, ways: Mapping[str, Run], device: torch.device, pace: Pace, ceiling: Ceiling
) -> Iterator[_Repeat]:
    spent, number, before = 0.0, 0, ceiling.measure()
    while number < pace.repeats or spent < pace.seconds:
        seconds = _timed(run, device)
        after = ceiling.measure()
        yield _Repeat(seconds, max(before, after), {name: _timed(way, device) for name, way in ways.items()})
        # what other programs do meanwhile changes in seconds: after a plain way, the ceiling is measured anew
        before = ceiling.measure() if ways else after
        spent, number = spent + seconds, number + 1


def _timing(
    case: Case, work: Work, executed: float, peak: float, plain_peaks: dict[str, float], repeats: list[_Repeat]
) -> Timing:
    flops = work.flops or executed
    seconds = statistics.median(repeat.seconds for repeat in repeats)
    return Timing(
        case.name,
        work.unit,
        seconds,
        work.items / seconds,
        flops / work.items / 1e9,
        executed / flops if flops else 0.0,
        flops / seconds / 1e9,
        statistics.median(repeat.ceiling for repeat in repeats),
        statistics.median(flops / repeat.seconds / 1e9 / repeat.ceiling for repeat in repeats),
        peak,
        {name: statistics.median(r.plain[name] / r.seconds for r in repeats) for name in plain_peaks},
        plain_peaks,
        seconds * work.whole if work.sliced else 0.0,
        work.sliced,
    )


def _timed(run: Run, device: torch.device) -> float:
    synchronize(device)
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin
