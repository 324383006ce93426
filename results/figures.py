"""The study's figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from results.scores import Cost, Scores
from utils.files import atomic_path

COLOURS = {
    "base": "#7f7f7f",
    "control": "#bdbdbd",
    "online": "#1f77b4",
    "adversarial": "#d62728",
    "online_adversarial": "#9467bd",
}
LINES = {"GD": ("o", "-"), "L-BFGS": ("^", "-."), "CEM": ("s", "--")}


def draw_all(scores: Scores, folder: Path) -> list[Path]:
    """Draw every figure; returns the PNG files."""
    paths = []
    for name, figure in (("success", _success(scores)), ("budgets", _budgets(scores))):
        paths.append(folder / f"{name}.png")
        with atomic_path(paths[-1]) as temporary:
            figure.savefig(temporary, format="png", dpi=130)
    return paths


def _success(scores: Scores) -> Figure:
    study = scores.study
    closed = [name for name in study.planners if name.startswith("mpc_")]
    groups = [
        ("one plan, carried out (open loop)", [name for name in study.planners if name not in closed]),
        ("replanned (MPC)", closed),
    ]
    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    width = 0.84 / len(study.models)
    for axes, (title, planners) in zip(figure.subplots(2, 1, sharey=True), groups, strict=True):
        for i, model in enumerate(study.models):
            at = [k + (i - (len(study.models) - 1) / 2) * width for k in range(len(planners))]
            found = [scores.success(model, planner) for planner in planners]
            means = [100 * e.mean for e in found]
            spread = [[100 * (e.mean - e.low) for e in found], [100 * (e.high - e.mean) for e in found]]
            axes.bar(at, means, width * 0.94, color=COLOURS.get(model), label=model)
            axes.errorbar(at, means, spread, fmt="none", color="black", capsize=2, linewidth=0.9)
            for x, estimate in zip(at, found, strict=True):
                axes.plot([x] * len(estimate.each), [100 * e for e in estimate.each], "k.", markersize=3)
        axes.set(xticks=range(len(planners)), ylim=(0, 100), ylabel="solved episodes, %")
        axes.set_xticklabels([name.removeprefix("mpc_") for name in planners])
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", linewidth=0.4, alpha=0.6)
        axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside lower center", fontsize=9)
    figure.suptitle("Bars: mean and 95 % interval over training seeds and episodes; dots: each seed", fontsize=10)
    return figure


def _budgets(scores: Scores) -> Figure:
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _curve(left, scores, lambda cost: cost.seconds)
    _curve(right, scores, lambda cost: cost.evaluations)
    left.set(xlabel="planning seconds per episode, wall clock", ylabel="solved episodes, %", ylim=(0, 100))
    right.set(xlabel="rollouts imagined per episode")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside lower center", fontsize=9)
    figure.suptitle("Success at equal budgets, replanned after every block (95 % intervals)", fontsize=10)
    return figure


def _curve(axes: Any, scores: Scores, spent: Callable[[Cost], float]) -> None:
    budgets = scores.study.config["budgets"]
    for planner, setting in budgets["planners"].items():
        marker, line = LINES.get(planner, ("D", ":"))
        for model in budgets["models"]:
            found = [scores.success(model, planner, budget) for budget in setting["evals"]]
            at = [spent(scores.cost(planner, [model], budget)) for budget in setting["evals"]]
            means = [100 * e.mean for e in found]
            spread = [[100 * (e.mean - e.low) for e in found], [100 * (e.high - e.mean) for e in found]]
            style = {"marker": marker, "linestyle": line, "color": COLOURS.get(model), "capsize": 2, "markersize": 5}
            axes.errorbar(at, means, spread, label=f"{planner}, {model}", **style)
    axes.set_xscale("log")
    axes.grid(linewidth=0.4, alpha=0.6)
