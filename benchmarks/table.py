"""The table, the same as JSON, and what an earlier run says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import Timing
from utils.files import write_json
from utils.reading.json_file import read_json

HEAD = (
    f"{'':46}{'items/s':>12}  {'':10}{'ms/item':>10}{'GFLOP/item':>12}{'GFLOP/s':>9}{'of mm':>7}{'of best':>8}"
    f"{'executed':>9}{'peak GB':>9}"
)


def line(timing: Timing, before: Mapping[str, float]) -> str:
    """One line: rates, arithmetic, memory, ratios to the plain ways and to an earlier run, a projection."""
    digits = 0 if timing.items_per_second >= 100 else 2
    text = f"{timing.name:46}{timing.items_per_second:12,.{digits}f}  {timing.unit:10}"
    text += f"{1000 / timing.items_per_second:10.4g}"
    if timing.gflop_per_item:
        text += f"{timing.gflop_per_item:12.4g}{timing.gflops:9.1f}{100 * timing.fraction:6.0f}%"
        text += f"{100 * timing.best_fraction:7.0f}%"
        text += f"{100 * timing.executed:8.0f}%" if timing.executed > 0.01 else f"{'-':>9}"
    else:
        text += " " * 45
    text += f"{timing.peak_gb:9.2f}"
    if timing.p99:
        text += f"  99 % within {1000 * timing.p99:.3g} ms"
    for name, ratio in timing.ratios.items():
        text += f"  {ratio:.1f} x {name}"
    if timing.sliced:
        text += f"  ~ {duration(timing.whole_seconds)} whole (from {timing.sliced}, by arithmetic)"
    if timing.parts:
        text += "\n" + " " * 10 + ", ".join(f"{name} {100 * share:.0f} %" for name, share in timing.parts.items())
    if timing.name in before:
        text += f"   {timing.items_per_second / before[timing.name]:.2f} x before"
    return text.rstrip()


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as one would say it."""
    for limit, unit, size in ((120.0, "s", 1.0), (7200.0, "min", 60.0)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 3600:.3g} h"


def save(path: Path, about: Mapping[str, Any], timings: Sequence[Timing]) -> None:
    """All lines so far, and what they depend on."""
    write_json(path, {**about, "timings": [asdict(timing) for timing in timings]})


def earlier(path: Path) -> dict[str, float]:
    """Items per second by name, of a file that ``save`` wrote.

    Raises:
        ValueError: If it is no such file.
    """
    try:
        timings = read_json(path, dict)["timings"]
        return {timing["name"]: timing["items_per_second"] for timing in timings}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--compare {path}: not a file of an earlier run ({error})") from None
