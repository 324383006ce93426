"""The study's figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from results.numbers import Cost, Numbers
from utils.pages import save_figure

COLOURS = {
    "base": "#7f7f7f",
    "control": "#bdbdbd",
    "online": "#1f77b4",
    "adversarial": "#d62728",
    "online_adversarial": "#9467bd",
}
LINES = {"GD": ("o", "-"), "L-BFGS": ("^", "-."), "CEM": ("s", "--")}


def draw_all(numbers: Numbers, prefix: str, drawn_from: str) -> None:
    """Draw every figure.

    Args:
        prefix: What a file's name begins with, folder included.
        drawn_from: Digest of the numbers, kept in the files.
    """
    save_figure(_success(numbers), Path(f"{prefix}success.png"), drawn_from)
    save_figure(_budgets(numbers), Path(f"{prefix}budgets.png"), drawn_from)


def _success(numbers: Numbers) -> Figure:
    closed = [name for name in numbers.planners if name.startswith("mpc_")]
    groups = [
        ("one plan, carried out (open loop)", [name for name in numbers.planners if name not in closed]),
        ("replanned (MPC)", closed),
    ]
    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    width = 0.84 / len(numbers.models)
    for axes, (title, planners) in zip(figure.subplots(2, 1, sharey=True), groups, strict=True):
        for i, model in enumerate(numbers.models):
            at = [k + (i - (len(numbers.models) - 1) / 2) * width for k in range(len(planners))]
            found = [numbers.success[model][planner] for planner in planners]
            means = [100 * e.mean for e in found]
            spread = [[100 * (e.mean - e.low) for e in found], [100 * (e.high - e.mean) for e in found]]
            axes.bar(at, means, width * 0.94, color=COLOURS.get(model), label=model)
            axes.errorbar(at, means, spread, fmt="none", color="black", capsize=2, linewidth=0.9)
            for x, estimate in zip(at, found, strict=True):
                axes.plot([x, x], [100 * min(estimate.each), 100 * max(estimate.each)], "k.", markersize=3)
        axes.set(xticks=range(len(planners)), ylim=(0, 100), ylabel="solved episodes, %")
        axes.set_xticklabels([name.removeprefix("mpc_") for name in planners])
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", linewidth=0.4, alpha=0.6)
        axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside lower center", fontsize=9)
    figure.suptitle(
        "Bars: mean and 95 % interval over training seeds and episodes; dots: lowest and highest seed", fontsize=10
    )
    return figure


def _budgets(numbers: Numbers) -> Figure:
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _curve(left, numbers, lambda cost: cost.seconds)
    _curve(right, numbers, lambda cost: cost.evaluations)
    left.set(xlabel="planning seconds per episode, wall clock", ylabel="solved episodes, %", ylim=(0, 100))
    right.set(xlabel="rollouts imagined per episode")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside lower center", fontsize=9)
    figure.suptitle("Success at equal budgets, replanned after every block (95 % intervals)", fontsize=10)
    return figure


def _curve(axes: Any, numbers: Numbers, spent: Callable[[Cost], float]) -> None:
    for planner in dict.fromkeys(row.planner for row in numbers.budgets):
        rows = [row for row in numbers.budgets if row.planner == planner]
        marker, line = LINES.get(planner, ("D", ":"))
        for model in rows[0].success:
            found = [row.success[model] for row in rows]
            is_own = all(model in row.own for row in rows)
            at = [spent(row.own[model] if is_own else row.cost) for row in rows]
            means = [100 * e.mean for e in found]
            spread = [[100 * (e.mean - e.low) for e in found], [100 * (e.high - e.mean) for e in found]]
            style = {"marker": marker, "linestyle": line, "color": COLOURS.get(model), "capsize": 2, "markersize": 5}
            axes.errorbar(at, means, spread, label=f"{planner}, {model}", **style)
    axes.set_xscale("log")
    axes.grid(linewidth=0.4, alpha=0.6)
