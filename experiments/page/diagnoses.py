"""The diagnoses of a report, as the page reads them; docs/why.md says what each number is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from experiments.report import Rate, Report
from utils.reading.opening import FileError

FAILURES = ("model", "search", "distance", "out of reach")


@dataclass(frozen=True, kw_only=True)
class Exploitation:
    """Costs of the plans as imagined and as they came true, by episode, and how the model ranks candidates."""

    imagined: Sequence[float | None] = ()
    true: Sequence[float | None] = ()
    rank_correlation: Mapping[str, Rate | None] = field(default_factory=dict)


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
    model: Sequence[Sequence[float | None]]
    simulator: Sequence[Sequence[float | None]]
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
    error_by_step: Mapping[str, Sequence[Rate | None] | None] = field(default_factory=dict)
    exploitation: Exploitation | None = None
    gradient_norm: Sequence[Rate | None] | None = None
    curvature: Rate | None = None
    spearman_steps: Rate | None = None
    spearman_state: Rate | None = None
    plane: Sequence[Plane] = ()
    failures: Mapping[str, int] = field(default_factory=dict)
    sorted: Sequence[Sorted] = ()


_PARSER = TypeAdapter(list[Diagnosis])


def diagnoses(report: Report) -> list[Diagnosis]:
    """Read the diagnoses of a report; means that are not known are None.

    Raises:
        FileError: If one is not what it must be.
    """
    try:
        return _PARSER.validate_python(_known([dict(why) for why in report.why]))
    except ValidationError as error:
        first = error.errors()[0]
        raise FileError(f"why.{'.'.join(map(str, first['loc']))}: {first['msg']}; make the report again") from None


def _known(value: Any) -> Any:
    """Put None in the place of means that are not known."""
    if isinstance(value, dict):
        return None if "mean" in value and value["mean"] is None else {k: _known(v) for k, v in value.items()}
    return [_known(each) for each in value] if isinstance(value, list) else value
