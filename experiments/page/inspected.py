"""What the plan inspector shows of the runs of a study: their numbers, and the frames that ``make_inspection`` drew."""

from __future__ import annotations

import base64
import csv
import hashlib
import itertools
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.page.diagnoses import Sorted, diagnoses
from experiments.report import Inspected, Report
from planning.episode_record import EPISODES, EpisodeRecord
from utils.files import sha256
from utils.reading.json_file import read_json
from utils.reading.opening import FileError, read_regular

MOST_EPISODES = 50  # of a run
MOST_IN_ALL = 1200  # of all runs: each takes about 4 kB of numbers
MOST_FRAME_BYTES = 34_000_000  # of all frames, as the page holds them
MOST_SHEET_BYTES = 4_000_000  # of one file
DIGITS = 4

Key = tuple[str, str, str, int]
"""Model, planner, goals and training seed."""


@dataclass
class Frames:
    """Sheets of frames as the page holds them, each once; after ``MOST_FRAME_BYTES`` no more are taken."""

    texts: dict[str, str] = field(default_factory=dict)
    size: int = 0
    is_full: bool = False

    def take(self, path: Path) -> str | None:
        """Add a file; returns its name in the page, None where there is no file or no room for it."""
        if not path.is_file():
            return None
        content = read_regular(path, MOST_SHEET_BYTES)
        name = hashlib.sha256(content).hexdigest()[:16]
        if name in self.texts:
            return name
        text = base64.b64encode(content).decode()
        if self.size + len(text) > MOST_FRAME_BYTES:
            self.is_full = True
            return None
        self.texts[name] = text
        self.size += len(text)
        return name


@dataclass(frozen=True)
class Run:
    """One run of the inspector: what lists of episodes need at once, and what is read when it is chosen."""

    about: Mapping[str, Any]
    episodes: Sequence[Mapping[str, Any]]


def inspected_runs(report: Report, folder: Path) -> tuple[list[Run], Frames]:
    """Read the runs that a report names.

    Args:
        report: What is shown.
        folder: Where ``report.json`` lies.

    Raises:
        FileError: If a run's ``episodes.npz`` is broken.
    """
    chosen, frames = _first_seeds(report, folder), Frames()
    most = min(MOST_EPISODES, MOST_IN_ALL // max(1, len(chosen)))
    readers = [_Reader(each, folder / each.folder, most) for each in chosen]
    lines = _lines(folder / "episodes.csv", {reader.key: set(reader.episodes) for reader in readers})
    causes = {
        (why.model, why.planner, why.goals, why.seed): {each.episode: each for each in why.sorted}
        for why in diagnoses(report)
    }
    shown: list[list[dict[str, Any]]] = [[] for _ in readers]
    for place in range(most):  # one of each run after the other: what does not fit is left out of all alike
        for reader, own in zip(readers, shown, strict=True):
            if place < len(reader.episodes):
                line = lines.get((reader.key, reader.episodes[place]), {})
                own.append(reader.episode(place, line, causes.get(reader.key, {}), frames))
    return [Run(reader.about, own) for reader, own in zip(readers, shown, strict=True)], frames


def _first_seeds(report: Report, folder: Path) -> list[Inspected]:
    """The runs of the first training seed; older runs, without a record of episodes, have nothing to show."""
    found: dict[tuple[str, str, str], Inspected] = {}
    for each in report.inspect:
        if (folder / each.folder / EPISODES).is_file():
            found.setdefault((each.model, each.planner, each.goals), each)
    return list(found.values())


class _Reader:
    """Reads one run, of which it holds no more than what is shown.

    Attributes:
        key: What the report calls it.
        episodes: Numbers of those that can be shown, at most so many.
    """

    def __init__(self, chosen: Inspected, folder: Path, most: int) -> None:
        self.folder, self.key = folder, (chosen.model, chosen.planner, chosen.goals, chosen.seed)
        path = folder / "episodes.npz"
        try:
            record = EpisodeRecord.read(path, latents=False)
        except FileNotFoundError:
            raise FileError(f"{path} is missing, which the plan inspector shows; run the study again") from None
        index = folder / "inspection" / "index.json"
        self.index = read_json(index, dict) if index.is_file() else None
        count = len(record.distances)
        drawn = range(count) if self.index is None else [n for n in self.index["episodes"] if n < count]
        self.episodes = list(drawn[:most])
        self.record = record.part(self.episodes)
        self.ends: list[int] = record.iteration_ends.tolist()
        self.about = self._about(path, chosen)

    def _about(self, path: Path, chosen: Inspected) -> dict[str, Any]:
        index = self.index or {}
        same = index.get("of") == sha256(path)
        return {
            "model": chosen.model,
            "planner": chosen.planner,
            "goals": chosen.goals,
            "seed": chosen.seed,
            "frameskip": self.record.frameskip,
            "ends": self.ends,
            "traceSteps": self.record.trace_steps.tolist(),
            "drawn": self.index is not None,
            "decoder": bool(index.get("decoder")),
            "older": self.index is not None and not same,
            "every": index.get("every", 1),
            "taken": index.get("taken", []),
        }

    def episode(
        self, place: int, line: Mapping[str, str], causes: Mapping[int, Sorted], frames: Frames
    ) -> dict[str, Any]:
        """Everything of the episode at a ``place`` among those shown, as plain data."""
        n = self.episodes[place]
        of = {name: getattr(self.record, name)[place] for name in BY_EPISODE}
        solved = next((end for end in self.ends[1:] if of["inside"][end]), None)
        cause, drawn = causes.get(n), self.folder / "inspection"
        places = drawn / f"places_{n}.json"
        return {
            "n": n,
            "solved": solved is not None,
            "solvedAt": solved,
            "final": line.get("final", "").lower() in ("true", "1") if line else bool(of["inside"][-1]),
            "why": cause.why if cause else line.get("failure", ""),
            "evidence": cause.evidence if cause else "",
            "distances": _plain(of["distances"]),
            "inside": of["inside"].astype(int).tolist(),
            "actions": _plain(of["actions"]),
            "planned": of["planned"].astype(int).tolist(),
            "plans": [
                _plain(plan) if is_made else None for plan, is_made in zip(of["plans"], of["planned"], strict=True)
            ],
            "trace": [
                _plain(trace) if is_made else None for trace, is_made in zip(of["trace"], of["planned"], strict=True)
            ],
            **{name: _plain(of[key]) for name, key in NUMBERS.items()},
            "places": read_json(places, dict) if places.is_file() else None,
            "real": frames.take(drawn / f"real_{n}.webp"),
            "imagined": frames.take(drawn / f"imagined_{n}.webp"),
        }


NUMBERS = {
    "before": "cost_before",
    "after": "cost_after",
    "evaluations": "evaluations",
    "gradients": "gradients",
    "seconds": "planning_seconds",
    "imaginedDistance": "imagined_distance",
    "trueDistance": "true_distance",
}
BY_EPISODE = ("distances", "inside", "actions", "planned", "plans", "trace", *NUMBERS.values())


def _plain(values: NDArray[Any]) -> Any:
    """Write numbers with a few digits, and None for what is none."""
    values = values.astype(float)
    is_number = np.isfinite(values)
    size = np.floor(np.log10(np.abs(values), where=is_number & (values != 0), out=np.zeros(values.shape)))
    power = 10.0 ** np.abs(DIGITS - 1 - size)
    fine = size < DIGITS  # dividing by a whole power of ten gives the shortest number, multiplying by 0.1 does not
    with np.errstate(invalid="ignore"):
        rounded = np.where(fine, np.round(values * power) / power, np.round(values / power) * power)
    plain = rounded.astype(object)
    plain[~is_number] = None
    return plain.tolist()


def _lines(path: Path, wanted: Mapping[Key, Container[int]]) -> dict[tuple[Key, int], dict[str, str]]:
    """Read ``episodes.csv``: the lines of the wanted episodes."""
    if not path.is_file():
        return {}
    found = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                key, episode = (line["model"], line["planner"], line["goals"], int(line["seed"])), int(line["episode"])
                if episode in wanted.get(key, ()):
                    found[key, episode] = line
    except (KeyError, ValueError, TypeError) as error:
        raise FileError(f"{path} is not a study's list of episodes ({error}); make the report again") from None
    return found


def split(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What the page needs of every run before one is chosen: who it is, and which episodes it solved."""
    light = ("n", "solved", "solvedAt", "final", "why")
    return [dict(run.about) | {"episodes": [{k: e[k] for k in light} for e in run.episodes]} for run in runs]


def shown_episodes(runs: Sequence[Run]) -> int:
    """Most episodes that a run shows."""
    return max(itertools.chain([0], (len(run.episodes) for run in runs)))
