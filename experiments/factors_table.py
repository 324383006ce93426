"""The table of factors of variation: what is solved with each, against the same episodes without."""

from __future__ import annotations

from experiments.report import Pair, Report
from experiments.wording import cell, points

NOTE = (
    "In brackets 95 % intervals; behind each success its paired difference from the same episodes without variation, "
    "in points, and p of McNemar's exact test; bold where it is clear."
)


def factors_table(report: Report) -> tuple[list[str], list[list[str]]] | None:
    """Make head and lines: sets of goals by planners and models; None if none of them varies."""
    if not any(goals.control for goals in report.goals.values()):
        return None
    rows = {(row.planner, row.model, row.goals): row for row in report.rows}
    pairs = {(pair.with_, pair.first, pair.second): pair for pair in report.pairs if pair.of == "factors"}
    cells = list(dict.fromkeys((row.planner, row.model) for row in report.rows))
    lines = []
    for name, goals in report.goals.items():
        line = [name, cell(goals.floors.nothing)]
        for planner, model in cells:
            row, pair = rows.get((planner, model, name)), pairs.get((f"{planner}, {model}", name, goals.control or ""))
            line.append("" if row is None else f"{cell(row.success)}{_difference(pair)}")
        lines.append(line)
    return ["variation", "doing nothing", *(f"{planner}, {model}" for planner, model in cells)], lines


def _difference(pair: Pair | None) -> str:
    if pair is None:
        return ""
    exact = "" if pair.p is None else f", p {pair.p:.2g}"
    return f"; {points(pair.difference, pair.verdict in ('better', 'worse'))}{exact}"
