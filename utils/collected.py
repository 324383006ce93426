"""What the runs below a folder came to: their settings, their numbers, and intervals over seeds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.loggers import read_json_lines
from utils.reading.files import FileError
from utils.reading.json_file import read_json
from utils.record import FINISHED, read_record
from utils.statistics import crossed_interval, mean_interval, wilson_interval

log = logging.getLogger(__name__)

METRICS = (
    "success_rate", "planning_seconds_per_episode", "model_evaluations_per_episode", "val_loss", "train_loss"
)  # fmt: skip
"""Shown unless others are asked for, as far as the runs have them."""

RATE, OUTCOMES = "success_rate", "solved_at"  # a rate, and the list (0 or more than 0 for each episode) that it is of
EPISODES = "seed"  # the setting that draws the episodes of an evaluation; any other makes another model or planner


@dataclass(frozen=True)
class Run:
    """A run folder: the overrides that it was started with, how it ended, and its last numbers."""

    folder: Path
    settings: Mapping[str, str]
    record: Mapping[str, Any]
    numbers: Mapping[str, Any]

    @property
    def is_finished(self) -> bool:
        """Whether its numbers are final."""
        return self.record["status"] == FINISHED


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval (NaN where one value says nothing of its spread), and that of each run."""

    value: float
    low: float
    high: float
    each: Sequence[float]

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f" [{number_text(self.low)}, {number_text(self.high)}]"
        return f"{number_text(self.value)}{interval}"


@dataclass(frozen=True)
class Row:
    """Runs that differ in the seeds only: their common settings, how many there are, what the finished ones came to."""

    settings: Mapping[str, str]
    runs: Sequence[Run]
    estimates: Mapping[str, Estimate]

    @property
    def finished(self) -> int:
        """Number of runs that the estimates are of."""
        return sum(run.is_finished for run in self.runs)


def read_runs(folder: Path) -> list[Run]:
    """All runs below a folder, in the order of their names.

    Raises:
        ValueError: If there is none.
    """
    found = []
    for path in sorted(folder.rglob("run.json")):
        if (record := read_record(path.parent)) is None:
            log.warning("%s cannot be read: that run is not in the table", path)
            continue
        found.append(Run(path.parent, _settings(record), record, _numbers(path.parent)))
    if not found:
        raise ValueError(f"{folder}: there is no run (no readable run.json) in it")
    return found


def collect(runs: Sequence[Run], over: Sequence[str] | None = None, metrics: Sequence[str] | None = None) -> list[Row]:
    """One row for each combination of settings; runs that differ only in the settings ``over`` share one.

    Args:
        runs: of a sweep. over: None means every setting named ``seed``. metrics: names of numbers; None means METRICS,
            as far as there are any.

    Raises:
        ValueError: If the runs do not differ in a setting of ``over``, or none has one of the metrics asked for.
    """
    varied = [key for key in _keys(runs) if len({run.settings.get(key) for run in runs}) > 1]
    if unknown := sorted(set(over or ()) - set(varied)):
        raise ValueError(f"--over {', '.join(unknown)}: the runs differ in {', '.join(varied) or 'nothing'}")
    there = {name for run in runs for name, value in run.numbers.items() if isinstance(value, int | float)}
    if missing := sorted(set(metrics or ()) - there):
        raise ValueError(f"--metric {', '.join(missing)}: the runs have {', '.join(sorted(there))}")
    seeds = set(over) if over is not None else {key for key in varied if key.rsplit(".", 1)[-1] == "seed"}
    shown = [key for key in varied if key not in seeds]
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.settings.get(key, "") for key in shown), []).append(run)
    rows = []
    for values, group in groups.items():
        rows.append(Row(dict(zip(shown, values, strict=True)), group, _estimates(group, metrics or METRICS)))
    return rows


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells as a table; a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _keys(runs: Iterable[Run]) -> list[str]:
    return list(dict.fromkeys(key for run in runs for key in run.settings))


def _settings(record: Mapping[str, Any]) -> dict[str, str]:
    """As the command line gave them: "planner" -> "mpc_gd", where the whole config differs in a dozen places.

    Not from ``.hydra``: an attempt that was refused has replaced that, and the numbers are of the one before.
    """
    parts = [text.lstrip("+~").partition("=") for text in record.get("overrides") or ()]
    return {key: value for key, sign, value in parts if sign}


def _numbers(folder: Path) -> dict[str, Any]:
    """Of an evaluation its results, of a training the last that its log says of each."""
    try:
        return _checked(read_json(folder / "results.json", dict), folder / "results.json")
    except FileNotFoundError:
        lines = read_json_lines(folder / "logs.json") if (folder / "logs.json").exists() else []
        return {name: value for line in lines for name, value in line.items() if value is not None}


def _checked(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Results in which all that is computed with are numbers."""
    solved = results.get(OUTCOMES, [0])
    odd = [name for name in METRICS if not isinstance(results.get(name, 0), int | float)]
    if not (isinstance(solved, list) and solved and all(isinstance(at, int | float) for at in solved)):
        odd.append(OUTCOMES)
    if odd:
        raise FileError(f"{path}: {', '.join(odd)} should be numbers; plan again, or leave that run out")
    return results


def _estimates(group: Sequence[Run], metrics: Sequence[str]) -> dict[str, Estimate]:
    runs = [run for run in group if run.is_finished]
    found = {}
    for name in metrics:
        values = [float(run.numbers[name]) for run in runs if isinstance(run.numbers.get(name), int | float)]
        if values:
            estimate = _rate(runs) if name == RATE and all(OUTCOMES in run.numbers for run in runs) else None
            found[name] = Estimate(*(estimate or mean_interval(values)), values)
    return found


def _rate(runs: Sequence[Run]) -> tuple[float, float, float] | None:
    """Success with an interval over all that was drawn: episodes by EPISODES, models by the other seeds.

    None if runs are missing, so that not every model met the same episodes.
    """
    table: dict[tuple[str, ...], dict[str, list[bool]]] = {}
    for run in runs:
        model = tuple(value for key, value in sorted(run.settings.items()) if key != EPISODES)
        solved = [number > 0 for number in run.numbers[OUTCOMES]]
        table.setdefault(model, {})[run.settings.get(EPISODES, "")] = solved
    rows = [[solved for _, draw in sorted(draws.items()) for solved in draw] for draws in table.values()]
    if len(rows) == 1:
        return sum(rows[0]) / len(rows[0]), *wilson_interval(sum(rows[0]), len(rows[0]))
    if len({(tuple(sorted(draws)), len(row)) for draws, row in zip(table.values(), rows, strict=True)}) > 1:
        return None
    return crossed_interval(np.array(rows, dtype=float))


def number_text(value: float) -> str:
    """Four digits, nothing where there is no number."""
    return "" if math.isnan(value) else f"{value:.4g}"
