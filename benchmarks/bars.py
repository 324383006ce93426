"""The speeds and the memory that are promised, each measured and judged."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.decision import decision_cases
from benchmarks.measure import Case, Timing
from benchmarks.planning import CEM_SAMPLES, CEM_STEPS, EPISODES, GD_STEPS, LBFGS_STEPS, planning_cases
from benchmarks.setting import Setting
from benchmarks.table import duration
from benchmarks.training import training_cases
from utils.machine import cpu_info

GPU_BATCH = 8
GD_CALL = f"GD-Adam {GD_STEPS} steps, {EPISODES} episodes"
CEM_CALL = f"CEM {CEM_SAMPLES} x {CEM_STEPS}, {EPISODES} episodes"
LBFGS_CALL = f"L-BFGS {LBFGS_STEPS} steps, 1 episode"
CPU_FLAGS = ("avx512_bf16", "amx_bf16")
NOT_HERE = "not measured here: no such GPU"


@dataclass(frozen=True)
class Bar:
    """A promise about one line.

    Attributes:
        case: Its name.
        text: What is promised.
        read: The number in question, of its timing.
        bound: At least or at most, in ``unit``.
        where: The kind of device that it is about.
    """

    case: str
    text: str
    read: Callable[[Timing], float]
    direction: Literal[">=", "<="]
    bound: float
    unit: str
    where: str = "cpu"

    def holds(self, value: float) -> bool:
        """Whether a measured ``value`` keeps it."""
        return value >= self.bound if self.direction == ">=" else value <= self.bound


@dataclass(frozen=True)
class Verdict:
    """What became of a bar; ``measured`` and ``met`` are None where it was not measured, ``note`` says why."""

    text: str
    required: str
    measured: float | None
    met: bool | None
    note: str = ""

    def line(self) -> str:
        """Format one line of the table of bars."""
        value = "-" if self.measured is None else f"{self.measured:.3g}"
        judged = {None: "-", True: "met", False: "NOT MET"}[self.met]
        return f"{self.text:66}{self.required:>16}{value:>10}  {judged:8}{self.note}".rstrip()


def bars(size: str, with_bf16: bool) -> list[Bar]:
    """List the bars of a CPU in float32, of bf16 on a CPU that computes with it, and of an H200 in bf16."""
    last, history, half, longer_half = f"{size} H=1", f"{size} H=3", f"{size} H=1 bf16", f"{size} H=3 bf16"
    found = [
        Bar(f"{last}: gd step", "GD step", _percent, ">=", 60, "% of mm"),
        Bar(f"{last}: cem step", "CEM step", _percent, ">=", 70, "% of mm"),
        Bar(f"{history}: adversarial step", "adversarial step", _percent, ">=", 60, "% of mm"),
    ]
    for title in (last, history):
        found.append(_against(title, "gd step", "shipped", 2.5))
        found.append(_against(title, "gd step", "frozen", 1.2))
    if size != "full":
        found.append(_against(history, "adversarial step", "shipped", 6.0))
    found.append(_against(history, "online refresh", "shipped", 4.0))
    if with_bf16:
        found.append(_against(half, "gd step", "shipped", 5.0))
        found.append(_against(half, "gd step", "frozen", 2.4))
        found.append(_against(half, "gd step", "float32", 2.0))
    if size == "full":
        found += _decisions(with_bf16, "avx512f" in cpu_info())
    gpu = "cuda"
    step = f"adversarial step, batch {GPU_BATCH} x 5 windows"
    for model in _models(size):
        text = LBFGS_CALL if model == size else f"{LBFGS_CALL}, 8 channels"
        found.append(Bar(f"{model} H=1 bf16: {LBFGS_CALL}", text, lambda timing: timing.seconds, "<=", 0.05, "s", gpu))
    return [
        *found,
        Bar(f"{half}: {GD_CALL}", GD_CALL, lambda timing: timing.seconds, "<=", 1.0, "s", gpu),
        Bar(f"{half}: {CEM_CALL}", CEM_CALL, lambda timing: timing.seconds, "<=", 45, "s", gpu),
        Bar(f"{longer_half}: adversarial step", step, lambda timing: 1 / timing.seconds, ">=", 25, "steps/s", gpu),
        Bar(f"{half}: {CEM_CALL}", f"{CEM_CALL}, peak", lambda timing: timing.peak_gb, "<=", 8, "GB", gpu),
        Bar(f"{longer_half}: adversarial step", f"{step}, peak", lambda timing: timing.peak_gb, "<=", 16, "GB", gpu),
    ]


def _decisions(with_bf16: bool, wide: bool) -> list[Bar]:
    """Seconds per decision on two cores, with AVX-512 or narrower vectors."""

    def decision(title: str, text: str, bound: float) -> Bar:
        return Bar(f"{title}: decision", f"decision, {text}", lambda timing: timing.seconds, "<=", bound, "s")

    found = [_against("full H=3", "adversarial step", "shipped", 8.0)]
    if not wide:
        at_best = Bar("full H=1: gd step", "GD step without AVX-512", _percent, ">=", 90, "% of mm")
        return [*found, at_best, decision("projected H=1", "8 channels", 8.0)]
    found += [decision("full H=1", "float32", 5.0), decision("projected H=1", "8 channels", 1.5)]
    return [*found, decision("full H=1 bf16", "bf16", 3.0)] if with_bf16 else found


def _against(title: str, case: str, way: str, bound: float) -> Bar:
    against = {"shipped": "earlier release", "frozen": "its loop, eval and frozen", "float32": "ours in float32"}[way]
    return Bar(f"{title}: {case}", f"{title}: {case}, against {against}", lambda t: t.ratios[way], ">=", bound, "x")


def _models(size: str) -> list[str]:
    """Name the models that bars are about: the full one also with features of 8 channels."""
    return [size, "projected"] if size == "full" else [size]


def _percent(timing: Timing) -> float:
    return 100 * timing.fraction


def bar_cases(options: argparse.Namespace, device: torch.device, folder: Path) -> Iterator[Case]:
    """The lines that the bars of this kind of device are about, in the order of the table."""
    size = "full" if options.size == "both" else options.size
    names = {bar.case for bar in bars(size, has_bf16(device)) if bar.where == device.type}
    whole = device.type == "cuda"
    for precision, history, model in itertools.product(("float32", "bf16"), (1, 3), _models(size)):
        setting = Setting(model, history, precision, device, folder, tuple(options.overrides), whole)
        if any(name.startswith(f"{setting.title}:") for name in names):
            cases = [*planning_cases(setting), *decision_cases(setting), *training_cases(setting)]
            yield from (case for case in cases if case.name in names)


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bf16."""
    return device.type != "cpu" or any(flag in cpu_info() for flag in CPU_FLAGS)


def judge(timings: Sequence[Timing], size: str, device: torch.device) -> list[Verdict]:
    """One verdict a bar; those of a GPU that is not here say how long this machine would take."""
    measured = {timing.name: timing for timing in timings}
    verdicts = []
    for bar in bars(size, has_bf16(device)):
        required = f"{bar.direction} {bar.bound:g} {bar.unit}"
        if bar.case in measured and bar.where == device.type:
            timing = measured[bar.case]
            value = bar.read(timing)
            note = f"({100 * timing.best_fraction:.0f} % of oneDNN's product)" if bar.read is _percent else ""
            verdicts.append(Verdict(bar.text, required, value, bar.holds(value), note))
        elif bar.where == device.type:
            verdicts.append(Verdict(bar.text, required, None, None, "not measured: interrupted"))
        elif bar.where == "cuda":
            verdicts.append(Verdict(bar.text, required, None, None, _projection(bar, size, measured)))
    return verdicts


def _projection(bar: Bar, size: str, measured: Mapping[str, Timing]) -> str:
    """How long this CPU would take in float32, by arithmetic from its own lines."""
    wholes = {
        GD_CALL: (f"{size} H=1: gd step", EPISODES * GD_STEPS),
        LBFGS_CALL: (f"{size} H=1: gd step", LBFGS_STEPS),
        CEM_CALL: (f"{size} H=1: cem step", EPISODES * CEM_STEPS * CEM_SAMPLES),
    }
    case, items = wholes.get(bar.text, ("", 0))
    if case not in measured:
        return NOT_HERE
    return f"{NOT_HERE}; this CPU: ~ {duration(items / measured[case].items_per_second)}"
