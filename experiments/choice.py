"""What the choice of the default objective rests on: how much each loses to the best one, on its worst task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.report import Report, Row
from utils.pages import markdown_table

BLOCK = "objectives_choice"
STUDIES = ("objectives_wall", "objectives_point_maze", "objectives_pusht")
KINDS = {"gradient": ("mpc_gd_lbfgs", "mpc_gd"), "sampling": ("mpc_cem",)}
WHOLE = "whole plans"  # what is there for comparison only


def largest_losses(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, float]]:
    """Kind of planner -> objective -> percentage points that it solves less than the best one, on its worst task.

    Of planners of a kind those episodes are pooled that the objective met with all of them.

    Args:
        rows: Task -> rows, whose planners are named "<planner>, <objective>".
    """
    rate: dict[tuple[str, str, str], list[float]] = {}
    for task, own in rows.items():
        for row in own:
            planner, _, objective = row.planner.partition(", ")
            for kind, planners in KINDS.items():
                if row.goals == "choice" and planner in planners and WHOLE not in objective:
                    rate.setdefault((kind, task, objective), []).append(100 * row.success.mean)
    found: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        most = max((len(rates) for key, rates in rate.items() if key[0] == kind), default=0)
        full = {key[1:]: sum(rates) / most for key, rates in rate.items() if key[0] == kind and len(rates) == most}
        best = {task: max(value for (other, _), value in full.items() if other == task) for task, _ in full}
        losses: dict[str, float] = {}
        for (task, objective), value in full.items():
            losses[objective] = max(losses.get(objective, 0.0), best[task] - value)
        found[kind] = dict(sorted(losses.items(), key=lambda item: item[1]))
    return found


def choice_table(reports: Sequence[Report]) -> str:
    """Write the largest losses as a table."""
    losses = largest_losses({report.protocol.env: report.rows for report in reports})
    rows = [[kind, name, f"{loss:.0f}"] for kind, own in losses.items() for name, loss in own.items()]
    return markdown_table(["planners", "objective", "largest loss over the tasks, points"], rows)
