"""The table of the page: every model with every planner, and what is reached without or with a perfect model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from experiments import wording
from experiments.page.figures import interval_bar
from experiments.page.keys import Keys, used_goals
from experiments.page.svg import number
from experiments.report import Rate, Report, Row
from experiments.wording import FLOORS

NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """What a cell shows, in small letters too, and the number it is sorted by; None goes to the end."""

    shown: str
    value: float | None = None
    bar: Markup | None = None
    small: str = ""


@dataclass(frozen=True)
class Line:
    """A line of the table; ``kind`` is "result", "floor" or "ceiling"."""

    kind: str
    model: str
    planner: str
    goals: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Column:
    """Head of a column: its name, unit, and the term of the glossary that explains it."""

    name: str
    unit: str
    term: str


COLUMNS = (
    Column("Solved", "%", "latched"),
    Column("At the end", "solved, %", "final"),
    Column("Steps", "to success", "raw step"),
    Column("Rollouts", "per episode", "rollout"),
    Column("Differentiated", "per episode", "gradient"),
    Column("TFLOP", "encoder + fwd + bwd", "tflop"),
    Column("Planning", "s", ""),
    Column("Simulation", "s", ""),
    Column("Memory", "GB", ""),
    Column("Episodes", "", ""),
)


def table(report: Report, keys: Keys) -> tuple[list[Column], list[Line]]:
    """List the columns of which anything is known, and the lines: results first for every set of goals, as reported."""
    lines = _lines(report, keys)
    known = [i for i in range(len(COLUMNS)) if any(line.cells[i].value is not None for line in lines)]
    return [COLUMNS[i] for i in known], [replace(line, cells=[line.cells[i] for i in known]) for line in lines]


def _lines(report: Report, keys: Keys) -> list[Line]:
    lines = []
    for name in used_goals(report):
        goals = report.goals[name]
        lines += [_result(row, keys) for row in report.rows if row.goals == name]
        for ceiling in goals.ceilings:
            cells = _only_success(ceiling.success, ceiling.episodes or goals.episodes)
            lines.append(Line("ceiling", f"simulator (seen by {ceiling.model})", ceiling.planner, name, cells))
        for floor, said in FLOORS.items():
            if (rate := getattr(goals.floors, floor)) is not None:
                cells = _only_success(rate, goals.episodes)
                kind = "ceiling" if floor == "expert" else "floor"
                lines.append(Line(kind, "no model", said, name, cells))
    return lines


def _result(row: Row, keys: Keys) -> Line:
    cost, tflop, steps = row.cost, row.cost.tflop, row.steps_to_success
    parts = (tflop.encoder, tflop.forward, tflop.backward)
    split = " + ".join(f"{value:.2g}" for value in parts if value is not None)
    spread = "" if steps is None or steps.low is None or steps.high is None else f"[{steps.low:g}, {steps.high:g}]"
    computed = _amount(tflop.total)
    return Line(
        "result",
        row.model,
        row.planner,
        row.goals,
        [
            _rate(row.success, f"c{keys.colour(row.model)}"),
            Cell(percent(row.final), row.final.mean) if row.final else Cell(NOTHING),
            Cell(f"{steps.median:g} {spread}".strip(), steps.median) if steps else Cell(NOTHING),
            _amount(cost.rollouts),
            _amount(cost.gradients),
            Cell(computed.shown, computed.value, small=split),
            _amount(cost.planning_seconds),
            _amount(cost.simulation_seconds),
            _amount(cost.peak_memory_gb),
            _amount(row.episodes * max(1, len(row.seeds))),
        ],
    )


def _only_success(rate: Rate, episodes: int) -> list[Cell]:
    between = [Cell(NOTHING) for _ in COLUMNS[2:]]
    return [_rate(rate, "ink"), *between, _amount(episodes)]


def percent(mean: Rate, signed: bool = False) -> str:
    """Write a rate or a difference of rates, with its interval."""
    written = wording.signed if signed else wording.whole
    return f"{written(mean.mean)}{wording.interval(mean, written)}".replace("-", "\N{MINUS SIGN}")


def _rate(mean: Rate, colour: str) -> Cell:
    return Cell(percent(mean), mean.mean, interval_bar(mean, 0, 1, _class=colour))


def _amount(value: float | None) -> Cell:
    return Cell(NOTHING) if value is None else Cell(number(value), value)
