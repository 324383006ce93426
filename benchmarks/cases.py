"""Everything that can be timed, by name."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.decision import SIZES as DECIDED
from benchmarks.measure import Case
from benchmarks.planning import network_cases, planning_cases
from benchmarks.real_time import real_time_cases
from benchmarks.setting import Setting
from benchmarks.simulation import reading_cases, simulator_cases
from benchmarks.training import training_cases


def settings(options: argparse.Namespace, device: torch.device, folder: Path) -> list[Setting]:
    """The models that the command line asks for.

    Raises:
        ValueError: If none of them knows an override.
    """
    pair = DECIDED if options.decision else ("small", "full")
    sizes = pair if options.size == "both" else (options.size,)
    every = (1,) if options.decision else (1, 3)
    histories = every if options.history == "both" else (int(options.history),)
    precisions = ("float32", "bf16") if options.dtype == "both" else (options.dtype,)
    own = tuple(options.overrides)
    chosen = [
        Setting(size, history, precision, device, folder, own, options.whole)
        for size in sizes
        for precision in precisions
        for history in histories
    ]
    if own:
        known = set().union(*(setting.known_overrides() for setting in chosen))
        unknown = [override for override in own if override not in known]
        if unknown:
            raise ValueError(f"{unknown[0]}: neither train.py nor plan.py with planner=gd or planner=cem has this key")
    return chosen


def all_cases(chosen: Sequence[Setting], folder: Path) -> Iterator[Case]:
    """List all cases, in the order of the table."""
    yield from simulator_cases()
    yield from reading_cases(folder)
    for setting in chosen:
        yield from network_cases(setting)
        yield from planning_cases(setting)
        yield from training_cases(setting)
        if (setting.size, setting.history) == ("small", 1):
            yield from real_time_cases(setting)
