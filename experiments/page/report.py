"""What ``report.json`` holds, read and checked once; docs/report_page.md says what the page makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from utils.pages import digest
from utils.reading.json_file import RESULTS_BYTES, read_json
from utils.reading.opening import FileError

SCHEMA = 1
FAILURES = ("model", "search", "distance", "out of reach")


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean with its 95 % interval, whose ends are None where one value cannot have one."""

    mean: float
    low: float | None = None
    high: float | None = None
    each: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A median with the ends of its interval."""

    median: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Tflop:
    """Floating point operations of an episode, in units of 10^12."""

    encoder: float | None = None
    forward: float | None = None
    backward: float | None = None
    total: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an episode costs; None is not known."""

    rollouts: float | None = None
    gradients: float | None = None
    tflop: Tflop = field(default_factory=Tflop)
    planning_seconds: float | None = None
    simulation_seconds: float | None = None
    peak_memory_gb: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model with one planner on one set of goals."""

    model: str
    planner: str
    goals: str
    seeds: Sequence[int]
    episodes: int
    success: Mean
    final: Mean | None = None
    steps_to_success: Spread | None = None
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Success of a planner with the simulator in the place of the model."""

    planner: str
    model: str
    success: Mean


@dataclass(frozen=True, kw_only=True)
class Goals:
    """A set of episodes, and what is reached in it without a model or with a perfect one."""

    goal_source: str | None
    goal_H: int | None  # noqa: N815  (DINO-WM's name)
    raw_steps: int | None
    budget_steps: int | None
    episodes: int
    hash: str | None
    floors: Mapping[str, Mean | None]
    ceilings: Sequence[Ceiling] = ()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models or planners on the same episodes; ``partner`` is what both were evaluated with."""

    of: Literal["models", "planners"]
    first: str
    second: str
    partner: str
    goals: str
    difference: Mean
    only_first: int | None
    only_second: int | None
    p: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One-step errors of a model on data set windows and where plans lead."""

    model: str
    base: str | None = None
    dataset: Mean
    planner: Mean


@dataclass(frozen=True, kw_only=True)
class Exploitation:
    """Costs of the plans as imagined and as they came true, by episode, and how the model ranks candidates."""

    imagined: Sequence[float | None] = ()
    true: Sequence[float | None] = ()
    rank_correlation: Mapping[str, Mean | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A named point of a plane."""

    name: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Plane:
    """The objective over a plane of action space, once by the model and once by the simulator."""

    episode: int
    x: Sequence[float]
    y: Sequence[float]
    model: Sequence[Sequence[float]]
    simulator: Sequence[Sequence[float]]
    points: Sequence[Place] = ()


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """Why one episode failed."""

    episode: int
    why: str
    evidence: str = ""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Why a model and a planner fail where they do."""

    model: str
    planner: str
    goals: str
    seed: int = 0
    error_by_step: Mapping[str, Sequence[Mean | None]] = field(default_factory=dict)
    exploitation: Exploitation | None = None
    gradient_norm: Sequence[Mean | None] | None = None
    curvature: Mean | None = None
    spearman_steps: Mean | None = None
    spearman_state: Mean | None = None
    plane: Sequence[Plane] = ()
    failures: Mapping[str, int] = field(default_factory=dict)
    sorted: Sequence[Sorted] = ()


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """A run whose episodes can be looked at; ``folder`` is relative to the report's."""

    model: str
    planner: str
    goals: str
    seed: int
    folder: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of ``report.json``."""

    schema: int
    title: str
    asked: str
    answer: Sequence[str]
    unfinished: Sequence[str]
    made: Mapping[str, Any]
    protocol: Mapping[str, Any]
    goals: Mapping[str, Goals]
    models: Mapping[str, Mapping[str, Any]]
    planners: Mapping[str, Mapping[str, Any]]
    rows: Sequence[Row]
    pairs: Sequence[Pair]
    gap: Sequence[Gap]
    why: Sequence[Diagnosis]
    inspect: Sequence[Inspected]
    commands: Sequence[str]
    digest: str
    is_whole: bool = True

    def used_goals(self) -> list[str]:
        """Names of the sets of goals that rows have, nearest first."""
        used = {row.goals for row in self.rows}
        return sorted((name for name in self.goals if name in used), key=lambda name: self.goals[name].raw_steps or 0)

    def used(self, key: Literal["models", "planners"]) -> list[str]:
        """Names of the models or planners that rows have, in the report's order."""
        found = {row.model if key == "models" else row.planner for row in self.rows}
        return [name for name in getattr(self, key) if name in found]


_PARSER = TypeAdapter(Report)


def read_report(path: Path) -> Report:
    """Read a ``report.json``; ``is_whole`` says whether its digest is that of its content.

    Raises:
        FileError: If it is broken, of another schema, or names what it does not describe.
        OSError: If it cannot be read.
    """
    content = read_json(path, dict, "make it again with: python -m experiments", RESULTS_BYTES)
    if content.get("schema") != SCHEMA:
        raise FileError(
            f"{path}: schema {content.get('schema')!r} is none that this version reads, which is {SCHEMA}: make the "
            "report again"
        )
    stated = {key: value for key, value in content.items() if key != "digest"}
    is_whole = content.get("digest") == digest(stated)
    for why in content.get("why", ()):  # an error is null where there are no data to measure it on
        why["error_by_step"] = {name: each or () for name, each in why.get("error_by_step", {}).items()}
    pairs = [{"partner" if key == "with" else key: value for key, value in pair.items()} for pair in content["pairs"]]
    try:
        report = _PARSER.validate_python({**content, "pairs": pairs, "is_whole": is_whole})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise FileError(f"{path}: {where}: {first['msg'].lower()}; make the report again") from None
    _refuse_unknown(path, report)
    return report


def _refuse_unknown(path: Path, report: Report) -> None:
    for row in (*report.rows, *report.why, *report.inspect):
        for key, known in (("model", report.models), ("planner", report.planners), ("goals", report.goals)):
            if (name := getattr(row, key)) not in known:
                raise FileError(
                    f"{path}: {type(row).__name__.lower()} names the {key} {name!r}, which is not described"
                )
