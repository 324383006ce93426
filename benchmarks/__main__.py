"""``python -m benchmarks``: one table, and the same as JSON."""

from __future__ import annotations

import utils.runtime as runtime  # first: it sets the thread environment before torch is loaded

# isort: split
import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from benchmarks.cases import SIZES, model_cases
from benchmarks.measure import Timing, matmul_ceiling, measure
from benchmarks.simulation import reading_cases, simulator_cases
from utils.files import write_json


def main() -> None:
    """Measure, print, save, compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", choices=[*SIZES, "both"], default="small", help="of the model (default: small)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="of one torch operation (default: 1)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line, at least")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/latest.json"))
    parser.add_argument("--compare", type=Path, help="an earlier JSON file: prints the ratio of every line")
    options = parser.parse_args()
    device = runtime.pick_device(options.device)
    runtime.set_threads(options.threads)
    before = {} if options.compare is None else _earlier(options.compare)
    say = sys.stdout.write
    say(f"matrix product, float32: {matmul_ceiling(device):.0f} GFLOP/s on {device}, {options.threads} threads\n")
    titles = f"{'GFLOP/item':>11}{'GFLOP/s':>9}{'of ceiling':>11}{'peak GB':>9}{'x plain':>9}"
    say(f"{'':34}{'items/s':>14}  {'':10}{titles}\n")
    timings = []
    with tempfile.TemporaryDirectory() as folder:
        sizes = SIZES if options.size == "both" else [options.size]
        data = reading_cases(Path(folder))
        for case in chain(simulator_cases(), data, *(model_cases(size, Path(folder) / size, device) for size in sizes)):
            timings.append(measure(case, device, options.seconds))
            say(_line(timings[-1], before) + "\n")
            sys.stdout.flush()
    described = {"environment": runtime.describe_environment(), "timings": [asdict(timing) for timing in timings]}
    write_json(options.out, described)
    say(f"written to {options.out}\n")


def _line(timing: Timing, before: dict[str, float]) -> str:
    digits = 0 if timing.items_per_second >= 100 else 2
    line = f"{timing.name:34}{timing.items_per_second:14,.{digits}f}  {timing.unit:10}"
    if timing.gflops:
        line += f"{timing.gflop_per_item:11.4f}{timing.gflops:9.1f}{100 * timing.fraction:10.0f}%"
    else:
        line += " " * 31
    line += f"{timing.peak_gb:9.2f}" + (f"{timing.speedup:8.1f}x" if timing.speedup else " " * 9)
    if timing.name in before:
        line += f"   {timing.items_per_second / before[timing.name]:.2f} x"
    return line


def _earlier(path: Path) -> dict[str, float]:
    try:
        timings = json.loads(path.read_text(encoding="utf-8"))["timings"]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: --compare {path}: not a file of an earlier run ({error})")
    return {timing["name"]: timing["items_per_second"] for timing in timings}


if __name__ == "__main__":
    main()
