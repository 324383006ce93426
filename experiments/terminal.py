"""A report as the table of a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.factors_table import factors_table
from experiments.report import Pair, Rate, Report, Row
from experiments.tables import goals_cell
from experiments.wording import FLOORS, interval, number, percent, signed, significant


def as_text(report: Report) -> str:
    """The table of a terminal, pairs with their verdicts, and the answer."""
    head = [
        "planner", "model", *(["goals"] if len(report.goals) > 1 else []), "solved", "95 % interval", "at the end",
        *FLOORS.values(), "steps", "TFLOP", "rollouts", "planning s",
    ]  # fmt: skip
    lines = [_line(report, row) for row in report.rows]
    for name, goals in report.goals.items():
        for each in goals.ceilings:
            where = [name] if len(report.goals) > 1 else []
            rate = _solved(each.success, each.episodes or goals.episodes)
            lines.append(
                [f"{each.planner} in the simulator", each.model, *where, *rate, *[""] * (len(head) - 4 - len(where))]
            )
    shown = [place for place in range(len(head)) if any(line[place] for line in lines)]
    table = _aligned([[row[place] for place in shown] for row in (head, *lines)])
    if varied := factors_table(report):
        table += ["", *_aligned([varied[0], *varied[1]])]
    pairs = [pair for pair in report.pairs if pair.of != "factors"]
    verdicts = _aligned([_verdict(report, pair) for pair in pairs]) if pairs else []
    return "\n".join([*table, "", *verdicts, *([""] if verdicts else []), *report.answer])


def _solved(rate: Rate, episodes: int) -> list[str]:
    ends = "" if rate.low is None or rate.high is None else f"{100 * rate.low:.0f} - {100 * rate.high:.0f}"
    return [f"{percent(rate.mean)} of {episodes}", ends]


def _line(report: Report, row: Row) -> list[str]:
    floors = [getattr(row.floors, key) for key in FLOORS]
    return [
        row.planner,
        row.model,
        *goals_cell(report, row),
        *_solved(row.success, row.episodes),
        "" if row.final is None else percent(row.final.mean),
        *("" if floor is None else percent(floor.mean) for floor in floors),
        "" if row.steps_to_success is None else f"{row.steps_to_success.median:.0f}",
        significant(row.cost.tflop.total),
        number(row.cost.rollouts),
        number(row.cost.planning_seconds, 2),
    ]


def _verdict(report: Report, pair: Pair) -> list[str]:
    where = f", {pair.goals}" if len(report.goals) > 1 else ""
    exact = "" if pair.p is None else f"p {pair.p:.2g}"
    what = f"{pair.first} against {pair.second}, with {pair.with_}{where}:"
    return [what, pair.verdict, f"{signed(pair.difference.mean)} points{interval(pair.difference, signed)}", exact]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
