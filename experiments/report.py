"""What a study found: ``report.json``, from which tables, figures and pages are made. See docs/results_format.md."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from utils.pages import digest, write_numbers
from utils.reading.json_file import RESULTS_BYTES, read_json
from utils.reading.opening import FileError

SCHEMA = 1
FILENAME = "report.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
    """A mean with its 95 % interval, and that of every training seed."""

    mean: float
    low: float | None = None
    high: float | None = None
    each: Sequence[float] = ()

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Floors:
    """What is solved without planning: by zero actions, random ones, and those that are known to lead to the goal."""

    nothing: Rate | None = None
    random: Rate | None = None
    expert: Rate | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What a search solves with the simulator as its model; ``model`` only encodes what is seen."""

    planner: str
    model: str
    success: Rate
    episodes: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goals:
    """A set of episodes.

    Attributes:
        floors: Of the planner that may act longest.
        budget_steps: Raw steps that it may take.
        control: The set that this one is with a variation; None: it has none.
    """

    goal_source: str | None = None
    goal_H: int | None = None  # noqa: N815  (DINO-WM's name)
    raw_steps: int | None = None
    budget_steps: int | None = None
    episodes: int
    hash: str | None = None
    floors: Floors = Floors()
    ceilings: Sequence[Ceiling] = ()
    control: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """Where a model comes from; ``base``: the model that it was finetuned from."""

    base: str | None = None
    seeds: Sequence[int] = ()
    checkpoints: Sequence[str] = ()
    trained_by: Sequence[str] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planner:
    """A planner; ``curve`` and ``budget``: which curve it is a point of, and rollouts that a plan of it may take."""

    overrides: Sequence[str] = ()
    kind: str | None = None
    horizon: int | None = None
    curve: str | None = None
    budget: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tflop:
    """Arithmetic of planning, 10^12 floating point operations."""

    encoder: float | None = None
    forward: float | None = None
    backward: float | None = None
    total: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What planning takes per episode, mean over seeds; None: not known. ``gradients``: rollouts differentiated."""

    rollouts: float | None = None
    gradients: float | None = None
    tflop: Tflop = Tflop()
    planning_seconds: float | None = None
    simulation_seconds: float | None = None
    peak_memory_gb: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """Raw steps until the solved episodes were solved: their median with its 95 % interval."""

    median: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One model with one planner on one set of goals; ``floors``: of this planner's own budget."""

    model: str
    planner: str
    goals: str
    seeds: Sequence[int] = ()
    episodes: int
    success: Rate
    final: Rate | None = None
    steps_to_success: Steps | None = None
    cost: Cost = Cost()
    floors: Floors = Floors()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """The difference of two models or planners, ``first`` minus ``second``, on the same episodes.

    Attributes:
        of: "models", "planners", or "factors": goals with a variation against the same without.
        with_: The planner, or the model, that both were evaluated with; of factors both, the planner first.
        only_first, only_second: Episodes that one of them solved alone, those of all seeds added up.
        p: Of McNemar's exact test, for one training seed.
        verdict: "better", "worse", or "not distinguishable": ``first`` against ``second``.
    """

    of: str
    first: str
    second: str
    with_: Annotated[str, Field(alias="with")]  # a word of Python's
    goals: str
    difference: Rate
    only_first: int | None = None
    only_second: int | None = None
    p: float | None = None
    verdict: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """One-step visual error of a model on data set windows, and where the plans of ``base`` lead; ``ratio`` of both."""

    model: str
    base: str
    dataset: Rate
    planner: Rate
    ratio: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspected:
    """The folder of a ``plan.py`` run, relative to that of the report."""

    model: str
    planner: str
    goals: str
    seed: int
    folder: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """When, with what and by which code the stages were run; ``seconds``: in which at least one of them ran."""

    date: str
    revision: str
    command: str
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    machine: str = ""
    seconds: float | None = None
    num_workers: int | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the episodes were drawn; the last three explain numbers in a sentence each."""

    env: str
    seed: int | None = None
    seed_rule: str = ""
    unsolved_starts_only: bool | None = None
    interval: str = ""
    latched: str = ""
    final: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A whole report.

    Attributes:
        asked: The question.
        answer: Sentences that follow from the numbers.
        unfinished: Names of stages that are still to be done.
        why: Diagnoses, see ``planning``; plain data.
        inspect: Run folders with episodes to look at.
        commands: The command lines that do the same as the stages.
        inputs: Files that the numbers come from, relative to the report's folder, and their SHA-256.
    """

    title: str
    asked: str
    answer: Sequence[str] = ()
    unfinished: Sequence[str] = ()
    made: Made
    protocol: Protocol
    goals: Mapping[str, Goals]
    models: Mapping[str, Model]
    planners: Mapping[str, Planner]
    rows: Sequence[Row]
    pairs: Sequence[Pair] = ()
    gap: Sequence[Gap] = ()
    why: Sequence[Mapping[str, Any]] = ()
    inspect: Sequence[Inspected] = ()
    commands: Sequence[str] = ()
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Give it as plain data, with its digest."""
        data = {"schema": SCHEMA, **_adapter().dump_python(self, mode="json", by_alias=True)}
        return data | {"digest": digest(data)}

    def write(self, folder: Path) -> None:
        """Write ``report.json``."""
        write_numbers(folder / FILENAME, self.as_json())

    @classmethod
    def read(cls, path: Path, strict: bool = True) -> Report:
        """Read a ``report.json``.

        Args:
            path: The file.
            strict: Whether one is refused that was edited.

        Raises:
            FileError: If it is of another schema, or its numbers are not those that its digest is of.
        """
        data = read_json(path, dict, most=RESULTS_BYTES)
        said, digested = data.pop("schema", None), data.pop("digest", None)
        if said != SCHEMA:
            raise FileError(f"{path} is a report of schema {said}, not {SCHEMA}; make it again from its study")
        if strict and digested != digest({"schema": said, **data}):
            raise FileError(f"{path} was changed after it was written; make it again from its study")
        try:
            return _adapter().validate_python(data)
        except ValidationError as error:
            first = error.errors()[0]
            raise FileError(f"{path} is no report: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def was_edited(path: Path) -> bool:
    """Whether the numbers of a ``report.json`` are not those that its digest is of."""
    data = read_json(path, dict, most=RESULTS_BYTES)
    return data.pop("digest", None) != digest(data)


@functools.cache
def _adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)
