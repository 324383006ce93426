"""Results of the runs below a folder: their settings, their numbers, and intervals over seeds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from launch.record import FINISHED, read_record
from planning.episode_hashes import episode_hashes
from planning.saved_evaluation import TARGETS
from utils.loggers import read_json_lines
from utils.reading.json_file import RESULTS_BYTES, read_json
from utils.reading.npz_file import read_npz
from utils.reading.opening import FileError
from utils.statistics import crossed_interval, mean_interval, wilson_interval

log = logging.getLogger(__name__)

METRICS = (
    "success_rate", "do_nothing_rate", "random_rate", "expert_rate", "solved_at_start_rate",
    "planning_seconds_per_episode", "model_evaluations_per_episode", "val_loss", "train_loss"
)  # fmt: skip
"""Shown unless others are asked for, as far as the runs have them."""

RATES = {
    "success_rate": "solved_at",
    "do_nothing_rate": "solved_by_doing_nothing",
    "random_rate": "solved_by_random_actions",
    "expert_rate": "solved_by_expert",
    "solved_at_start_rate": "solved_at_start",
}
"""Rates, and the lists that they are of: one entry for each episode, more than 0 where it counts."""

OUTCOMES = RATES["success_rate"]
EPISODES = "seed"  # the setting that draws the episodes of an evaluation; any other makes another model or planner
PROTOCOL = "unsolved_starts_only"  # of the results; runs that drew their episodes differently share no row


@dataclass(frozen=True)
class Run:
    """A run folder: the overrides that it was started with, how it ended, and its last numbers."""

    folder: Path
    settings: Mapping[str, str]
    record: Mapping[str, Any]
    numbers: Mapping[str, Any]
    episodes: Sequence[str] = ()  # a name for each that says what it is, whatever its number or seed

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
    """Runs that differ in the seeds only, their common settings, and what the finished ones came to."""

    settings: Mapping[str, str]
    runs: Sequence[Run]
    estimates: Mapping[str, Estimate]

    @property
    def episodes(self) -> tuple[int, int, int]:
        """Number of episodes that the finished runs met: distinct ones, different for each model, and in all."""
        met = [(_model(run), name) for run in self.runs if run.is_finished for name in run.episodes]
        return len({name for _, name in met}), len(set(met)), len(met)

    @property
    def finished(self) -> int:
        """Number of runs that the estimates are of."""
        return sum(run.is_finished for run in self.runs)


def read_runs(folder: Path) -> list[Run]:
    """Read all runs below a folder, in the order of their names.

    Raises:
        ValueError: If there is none.
    """
    found = []
    for path in sorted(folder.rglob("run.json")):
        if (record := read_record(path.parent)) is None:
            log.warning("%s cannot be read: that run is not in the table", path)
            continue
        numbers = _numbers(path.parent)
        found.append(Run(path.parent, _settings(record), record, numbers, _episodes(path.parent, record, numbers)))
    if not found:
        raise ValueError(f"{folder}: there is no run (no readable run.json) in it")
    return found


def make_rows(
    runs: Sequence[Run], over: Sequence[str] | None = None, metrics: Sequence[str] | None = None
) -> list[Row]:
    """Make one row for each combination of settings; runs that differ only in the settings ``over`` share one.

    Args:
        runs: Those of a sweep.
        over: None means every setting named ``seed``.
        metrics: Names of numbers; None means METRICS, as far as there are any.

    Raises:
        ValueError: If the runs do not differ in a setting of ``over``, or none has one of the metrics asked for.
    """
    runs = _told_apart(runs)
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
    return [
        Row(dict(zip(shown, values, strict=True)), group, _estimates(group, metrics or METRICS))
        for values, group in groups.items()
    ]


def _keys(runs: Iterable[Run]) -> list[str]:
    return list(dict.fromkeys(key for run in runs for key in run.settings))


def _settings(record: Mapping[str, Any]) -> dict[str, str]:
    """Return a run's overrides: "planner" -> "mpc_gd", where the whole config differs in a dozen places.

    Not from ``.hydra``: an attempt that was refused has replaced that, and the numbers are of the one before.
    """
    parts = [text.lstrip("+~").partition("=") for text in record.get("overrides") or ()]
    return {key: value for key, sign, value in parts if sign}


def _told_apart(runs: Sequence[Run]) -> Sequence[Run]:
    """Add PROTOCOL to the settings if the runs differ in it: older ones do without having been told to."""
    drew = [str(run.numbers.get(PROTOCOL, False)).lower() if OUTCOMES in run.numbers else "" for run in runs]
    if len({*drew} - {""}) < 2:
        return runs
    return [replace(run, settings={**run.settings, PROTOCOL: own}) for run, own in zip(runs, drew, strict=True)]


def _numbers(folder: Path) -> dict[str, Any]:
    """Read the results of an evaluation, or the last number of each name in a training's log."""
    try:
        return _checked(read_json(folder / "results.json", dict, most=RESULTS_BYTES), folder / "results.json")
    except FileNotFoundError:
        lines = read_json_lines(folder / "logs.json") if (folder / "logs.json").exists() else []
        return {name: value for line in lines for name, value in line.items() if value is not None}


def _checked(results: dict[str, Any], path: Path) -> dict[str, Any]:
    """Refuse results in which what is computed with is no number, or lists lack an entry for an episode."""
    solved = results.get(OUTCOMES, [0])
    solved = solved if isinstance(solved, list) else []
    odd = [name for name in METRICS if not isinstance(results.get(name, 0), int | float)]
    for name in RATES.values():
        each = results.get(name, solved)
        fits = isinstance(each, list) and each and len(each) == len(solved)
        if not (fits and all(isinstance(value, int | float) for value in each)):
            odd.append(name)
    if odd:
        raise FileError(f"{path}: {', '.join(odd)} should be numbers; plan again, or leave that run out")
    return results


def _episodes(folder: Path, record: Mapping[str, Any], numbers: Mapping[str, Any]) -> list[str]:
    """Name what each episode of an evaluation is, in the order of its results.

    Older results do not say it: then the goals that the run left behind do, or else the rule of then, by which
    episode n of seed s was that of the environment seed s n + 1.
    """
    count, said = len(numbers.get(OUTCOMES) or ()), numbers.get("episode_hash")
    if isinstance(said, list) and len(said) == count:
        return [str(name) for name in said]
    try:
        hashes = episode_hashes(read_npz(folder / TARGETS))
        if len(hashes) == count:
            return hashes
    except (OSError, ValueError, KeyError):
        pass  # not there, or no goals
    config = record["config"]
    drawn_by = [str(config.get(key)) for key in ("goal_source", "goal_H", "goal_file_path")]
    try:
        step = int(config.get(EPISODES, 99))
    except (TypeError, ValueError):
        return [f"{folder}/{n}" for n in range(count)]  # nothing is known of them
    return ["/".join([*drawn_by, str(step * n + 1)]) for n in range(count)]


def _estimates(group: Sequence[Run], metrics: Sequence[str]) -> dict[str, Estimate]:
    runs = [run for run in group if run.is_finished]
    found = {}
    for name in metrics:
        values = [float(run.numbers[name]) for run in runs if isinstance(run.numbers.get(name), int | float)]
        if values:
            is_rate = name in RATES and all(RATES[name] in run.numbers for run in runs)
            found[name] = Estimate(*((_rate(runs, RATES[name]) if is_rate else None) or mean_interval(values)), values)
    return found


def _model(run: Run) -> tuple[str, ...]:
    """Return everything that was set but the episodes."""
    return tuple(value for key, value in sorted(run.settings.items()) if key != EPISODES)


def _rate(runs: Sequence[Run], outcomes: str) -> tuple[float, float, float] | None:
    """Estimate a rate with an interval over all that was drawn: distinct episodes, and models (any other seed).

    An episode that a model met more than once counts once, with the mean of what became of it. None if runs are
    missing, so that not every model met the same episodes.
    """
    table: dict[tuple[str, ...], dict[str, list[bool]]] = {}
    for run in runs:
        model = table.setdefault(_model(run), {})
        for episode, outcome in zip(run.episodes, run.numbers[outcomes], strict=True):
            model.setdefault(episode, []).append(outcome > 0)
    rows = [[fmean(model[episode]) for episode in sorted(model)] for model in table.values()]
    if len(rows) == 1:
        return fmean(rows[0]), *wilson_interval(sum(rows[0]), len(rows[0]))
    if len({tuple(sorted(model)) for model in table.values()}) > 1:
        return None
    return crossed_interval(np.array(rows, dtype=float))


def number_text(value: float) -> str:
    """Write a number with four digits; nothing where there is none."""
    return "" if math.isnan(value) else f"{value:.4g}"
