"""``python -m benchmarks``: one table, and the same as JSON. Hydra overrides of train.py and plan.py may follow."""

from __future__ import annotations

import utils.runtime as runtime  # first: it sets the thread environment before torch is loaded

# isort: split
import argparse
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from tqdm import tqdm

from benchmarks import ceiling
from benchmarks.bars import bar_cases, judge
from benchmarks.cases import all_cases, settings
from benchmarks.ceiling import CUBES, Ceiling
from benchmarks.decision import decision_cases
from benchmarks.growth import Axis, Curve, axes, measured, write
from benchmarks.measure import Case, Pace, Timing, measure
from benchmarks.setting import Setting
from benchmarks.table import HEAD, earlier, line, save
from utils.printable import quiet_pipe

INTERRUPTED = 130  # what a shell says of a command that Ctrl-C ended


def main() -> None:
    """Parse, measure, and say what went wrong in one line."""
    options = _parser().parse_intermixed_args()
    logging.basicConfig(level=logging.ERROR)  # that models are untrained is no news here
    try:
        device = runtime.pick_device(options.device)
        runtime.set_threads(1 if options.cpu_time else options.threads)
        ceiling.of_process = options.cpu_time
        before = {} if options.compare is None else earlier(options.compare)
        with tempfile.TemporaryDirectory() as folder:
            chosen = settings(options, device, Path(folder))
            if options.growth:
                _growth(options, device, axes(chosen[0]))
                return
            listed = _listed(options, chosen, device, Path(folder))
            cases = [case for case in listed if re.search(options.only, case.name, re.IGNORECASE)]
            if options.list:
                sys.stdout.write("\n".join(case.name for case in cases) + "\n")
            elif cases:
                _table(options, device, cases, before)
            else:
                raise ValueError(f"--only {options.only}: no line has such a name; --list prints them all")
    except (ValueError, InstantiationException) as error:
        sys.exit("error: " + str(error.__cause__ or error).replace("\n", " "))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("overrides", nargs="*", help="Hydra overrides, e.g. planner.lr=0.1; each is taken by the cases that know it")
    add("--only", metavar="PATTERN", default="", help="lines whose name this regular expression matches")
    add("--list", action="store_true", help="print the names of the lines and stop")
    add("--size", choices=["small", "full", "projected", "both"], default="both", help="of the model (default: both)")
    add("--history", choices=["1", "3", "both"], default="both", help="frames of context (default: both)")
    add("--dtype", choices=["float32", "bf16", "both"], default="float32", help="of the networks (default: float32)")
    add("--device", default="auto")
    add("--threads", type=int, help="of one torch operation (default: torch's choice)")
    add("--cpu-time", action="store_true", help="one thread and its own time, on a machine that does other work too")
    add("--seconds", type=float, default=2.0, help="for each line, at least (default: 2)")
    add("--quick", action="store_true", help="each line once, without repeats")
    add("--plain", action="store_true", help="time the plain ways too, in turn, and print the ratio")
    add("--whole", action="store_true", help="run planning calls to their end instead of a slice (a GPU's job)")
    add("--bars", action="store_true", help="only the lines whose speed or memory is promised, and a verdict on each")
    add("--decision", action="store_true", help="seconds per decision of the full-size models, and of what it consists")
    add("--growth", action="store_true", help="curves of seconds and memory against episodes, horizon and the like")
    add("--json", type=Path, default=Path("benchmarks/results/latest.json"), help="where the numbers go")
    add("--compare", type=Path, help="an earlier JSON file: prints the ratio of every line")
    return parser


def _listed(
    options: argparse.Namespace, chosen: Sequence[Setting], device: torch.device, folder: Path
) -> Iterator[Case]:
    if options.bars:
        return bar_cases(options, device, folder)
    if options.decision:
        return (case for setting in chosen for case in decision_cases(setting))
    return all_cases(chosen, folder)


def _growth(options: argparse.Namespace, device: torch.device, every: Sequence[Axis]) -> None:
    chosen = [axis for axis in every if re.search(options.only, axis.name, re.IGNORECASE)]
    path, curves = options.json.with_name("growth.json"), list[Curve]()
    try:
        for axis in chosen:
            curves.append(measured(axis, device, _say))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        if curves:
            write(curves, _about(options, device), path)
            _say(f"written to {path} and {path.with_suffix('.png')}")


def _table(
    options: argparse.Namespace,
    device: torch.device,
    cases: Sequence[Case],
    before: dict[str, float],
) -> None:
    plain = options.plain or options.bars or options.decision
    pace = Pace(0.0, 1, plain) if options.quick else Pace(options.seconds, 3, plain)
    ceilings: dict[torch.dtype, Ceiling] = {}
    for dtype in {case.dtype: None for case in cases}:
        ceilings[dtype] = Ceiling(device, dtype)
        peaks, sides = ceilings[dtype].measure(), " and ".join(map(str, CUBES[device.type]))
        other = f", oneDNN's {peaks.best:.0f}" if peaks.best > peaks.torch_mm else ""
        sys.stdout.write(
            f"matrix product, {str(dtype).removeprefix('torch.')}: torch.mm {peaks.torch_mm:.0f} GFLOP/s{other}, on "
            f"{device}, {torch.get_num_threads()} threads (the better of sides {sides})\n"
        )
    sys.stdout.write(HEAD + "\n")
    timings: list[Timing] = []
    stopped = _run(cases, device, pace, ceilings, before, timings, options)
    if options.bars:
        verdicts = judge(timings, "full" if options.size == "both" else options.size, device)
        sys.stdout.write("\n" + "\n".join(verdict.line() for verdict in verdicts) + "\n")
        save(options.json, _about(options, device) | {"bars": [asdict(verdict) for verdict in verdicts]}, timings)
    sys.stdout.write(f"written to {options.json}\n")
    if stopped:
        sys.exit(INTERRUPTED)


def _run(
    cases: Sequence[Case],
    device: torch.device,
    pace: Pace,
    ceilings: dict[torch.dtype, Ceiling],
    before: dict[str, float],
    timings: list[Timing],
    options: argparse.Namespace,
) -> bool:
    """Measure into ``timings``, saving after every line; whether Ctrl-C ended it early."""
    about = _about(options, device)
    with tqdm(cases, unit="line", leave=False, disable=None) as bar:
        try:
            for case in bar:
                bar.set_description(case.name)
                timings.append(measure(case, device, pace, ceilings))
                _say(line(timings[-1], before))
                save(options.json, about, timings)
        except KeyboardInterrupt:
            _say(f"interrupted; {len(timings)} of {len(cases)} lines are measured")
            save(options.json, about, timings)
            return True
    return False


def _say(text: str) -> None:
    """A line above the progress bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def _about(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    environment = runtime.describe_environment() | {"cpu_cores": str(os.cpu_count()), "device": str(device)}
    return {"date": date, "environment": environment, "options": given}


if __name__ == "__main__":
    with quiet_pipe():
        main()
