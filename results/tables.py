"""The study's tables, as markdown."""

from __future__ import annotations

from experiments.estimate import Estimate
from results.numbers import Numbers
from utils.pages import markdown_table


def success_table(numbers: Numbers) -> str:
    """Planners by models: mean, 95 % interval, (range over training seeds); and what doing nothing solves."""
    idle = ["doing nothing"] if numbers.nothing else []
    rows = [
        [
            name,
            *(numbers.nothing[name].as_percent() for _ in idle),
            *(numbers.success[model][name].as_percent() for model in numbers.models),
        ]
        for name in numbers.planners
    ]
    return markdown_table(["planner", *idle, *numbers.models], rows)


def difference_table(numbers: Numbers) -> str:
    """What each finetuning adds, against the control (as many steps of plain training) and against the base."""
    rows = [[name, *(column[name].as_points() for column in numbers.differences.values())] for name in numbers.planners]
    return markdown_table(["planner", *numbers.differences], rows)


def cost_table(numbers: Numbers) -> str:
    """What a planner takes per episode."""
    rows = [
        [name, f"{cost.seconds:.3f}", f"{cost.evaluations:.0f}", f"{cost.gradients:.0f}"]
        for name, cost in numbers.cost.items()
    ]
    head = ["planner", "planning s / episode, median", "rollouts / episode, mean", "of these differentiated"]
    return markdown_table(head, rows)


def budget_table(numbers: Numbers) -> str:
    """Success at equal budgets."""
    models = list(numbers.budgets[0].success)
    rows = []
    for row in numbers.budgets:
        cost = [f"{row.cost.evaluations:.0f}", f"{row.cost.seconds:.3f}"]
        rows.append([row.planner, str(row.rollouts), *cost, *(row.success[model].as_percent() for model in models)])
    return markdown_table(["planner", "rollouts / plan", "rollouts / episode", "planning s / episode", *models], rows)


def gap_table(numbers: Numbers) -> str:
    """One-step error where the data set goes and where the base's plans lead."""
    rows = [[model, _error(e.dataset), _error(e.planner), f"{e.ratio:.1f}"] for model, e in numbers.errors.items()]
    return markdown_table(["model", "data set windows", "where the base's plans lead", "ratio"], rows)


def _error(of: Estimate) -> str:
    return f"{of.mean:.4f} [{of.low:.4f}, {of.high:.4f}]"
