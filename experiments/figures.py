"""A report's figures, as PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from experiments.report import Cost, Rate, Report, Row
from utils.files import atomic_path
from utils.pages import digest, save_figure

SPENT: dict[str, tuple[str, Callable[[Cost], float | None]]] = {
    "seconds": ("planning seconds per episode, wall clock", lambda cost: cost.planning_seconds),
    "tflop": ("TFLOP per episode", lambda cost: cost.tflop.total),
    "rollouts": ("rollouts imagined per episode", lambda cost: cost.rollouts),
}
"""Figures of success against a cost."""

TITLES = {
    "success": "Success of every planner with every model",
    "seconds": "Success against planning seconds",
    "tflop": "Success against TFLOP",
    "rollouts": "Success against imagined rollouts",
    "gap": "One-step error of the models",
}
"""Figures that there are, and what stands for them where they are not seen."""

MARKERS = "os^Dv<>PX*hd"
MOST_IN_A_PANEL, MOST_LABELLED = 8, 12


def draw_all(report: Report, prefix: str, names: Iterable[str] = tuple(TITLES), svg: bool = True) -> list[str]:
    """Draw the figures of those names of which something is known; returns which.

    Args:
        report: What to draw.
        prefix: What a file's name begins with, folder included.
        names: Some of ``TITLES``.
        svg: Whether to write SVG files beside the PNG.
    """
    drawn_from, drawn = digest(report.as_json()), []
    for name in names:
        if (figure := draw(report, name)) is None:
            continue
        save_figure(figure, Path(f"{prefix}{name}.png"), drawn_from)
        if svg:
            with atomic_path(Path(f"{prefix}{name}.svg")) as temporary:
                figure.savefig(temporary, format="svg", metadata={"Date": None, "Description": drawn_from})
        drawn.append(name)
    return drawn


def draw(report: Report, name: str) -> Figure | None:
    """Draw one figure; None if nothing is known for it."""
    if name == "success":
        return _success(report) if report.rows else None
    if name == "gap":
        return _gap(report) if report.gap else None
    label, spent = SPENT[name]
    rows = [row for row in _curves(report) or report.rows if spent(row.cost)]
    return _against(report, rows, label, spent) if rows else None


def _curves(report: Report) -> list[Row]:
    return [row for row in report.rows if report.planners[row.planner].curve is not None]


def _colours(report: Report) -> dict[str, Any]:
    palette = colormaps["tab10"].colors  # type: ignore[attr-defined]
    return {model: palette[place % len(palette)] for place, model in enumerate(report.models)}


def _spread(rates: Sequence[Rate]) -> list[list[float]]:
    """Lengths of the whiskers below and above, in points; 0 where they are not known."""
    below = [100 * (r.mean - (r.mean if r.low is None else r.low)) for r in rates]
    above = [100 * ((r.mean if r.high is None else r.high) - r.mean) for r in rates]
    return [[max(0.0, v) for v in below], [max(0.0, v) for v in above]]


def _success(report: Report) -> Figure:
    """Bars in groups of a planner, a few groups in a panel, each bar with its number."""
    rows = [row for row in report.rows if row not in _curves(report)] or list(report.rows)
    groups = list(dict.fromkeys((row.planner, row.goals) for row in rows))
    models = [model for model in report.models if any(row.model == model for row in rows)]
    panels = math.ceil(len(groups) / MOST_IN_A_PANEL)
    each = math.ceil(len(groups) / panels)
    width = max(6.4, 1.1 + 0.34 * each * len(models))
    figure = Figure(figsize=(width, 0.6 + 2.9 * panels), layout="constrained")
    for axes, at in zip(figure.subplots(panels, 1, squeeze=False)[:, 0], range(0, len(groups), each), strict=True):
        _bars(axes, report, rows, groups[at : at + each], models)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, ncols=min(5, len(labels)), loc="outside lower center", fontsize=9)
    figure.suptitle("Success on the same episodes, with 95 % intervals", fontsize=10)
    return figure


def _bars(
    axes: Any, report: Report, rows: Sequence[Row], groups: Sequence[tuple[str, str]], models: Sequence[str]
) -> None:
    colours, width = _colours(report), 0.84 / len(models)
    for i, model in enumerate(models):
        own = [row for row in rows if row.model == model and (row.planner, row.goals) in groups]
        at = [groups.index((row.planner, row.goals)) + (i - (len(models) - 1) / 2) * width for row in own]
        rates = [row.success for row in own]
        heights = [100 * rate.mean for rate in rates]
        axes.bar(at, heights, width * 0.94, color=colours[model], label=model)
        axes.errorbar(at, heights, _spread(rates), fmt="none", color="black", capsize=2, linewidth=0.9)
        for x, height in zip(at, heights, strict=True):
            axes.text(x, 2, f"{height:.0f}", ha="center", va="bottom", fontsize=7, color="white", weight="bold")
    several = len(report.goals) > 1
    names = [f"{planner}\n{goals}" if several else planner for planner, goals in groups]
    axes.set(xticks=range(len(groups)), ylim=(0, 100), ylabel="solved episodes, %")
    axes.set_xticklabels(names, fontsize=8)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)


def _against(report: Report, rows: Sequence[Row], label: str, spent: Callable[[Cost], float | None]) -> Figure:
    """Success against a cost: a point for each row, those of a curve joined."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes, colours = figure.subplots(), _colours(report)
    names = {row.planner: report.planners[row.planner].curve or row.planner for row in rows}
    markers = {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(dict.fromkeys(names.values()))}
    lines: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((names[row.planner], row.model, row.goals), []).append(row)
    for (planner, model, goals), own in lines.items():
        x = [spent(row.cost) or 0.0 for row in own]
        rates = [row.success for row in own]
        style = {"marker": markers[planner], "color": colours[model], "capsize": 2, "markersize": 5}
        text = f"{planner}, {model}{f', {goals}' if len(report.goals) > 1 else ''}"
        axes.errorbar(x, [100 * r.mean for r in rates], _spread(rates), label=text, **style)
        if len(lines) <= MOST_LABELLED:
            axes.annotate(text, (x[-1], 100 * rates[-1].mean), (5, 3), textcoords="offset points", fontsize=7)
    if len(lines) > MOST_LABELLED:
        axes.legend(fontsize=6, ncols=3)
    axes.set_xscale("log")
    axes.set(xlabel=label, ylabel="solved episodes, %", ylim=(0, 104))
    axes.grid(linewidth=0.4, alpha=0.6)
    axes.margins(x=0.2)
    axes.set_title("Success against cost, with 95 % intervals", fontsize=10)
    return figure


def _gap(report: Report) -> Figure:
    figure = Figure(figsize=(max(6.4, 1 + 0.8 * len(report.gap)), 3.2), layout="constrained")
    axes, colours = figure.subplots(), _colours(report)
    for offset, where, hatch in ((-0.2, "dataset", None), (0.2, "planner", "//")):
        rates: list[Rate] = [getattr(each, where) for each in report.gap]
        axes.bar(
            [i + offset for i in range(len(rates))],
            [rate.mean for rate in rates],
            0.36,
            yerr=[[v / 100 for v in side] for side in _spread(rates)],
            color=[colours[each.model] for each in report.gap],
            edgecolor="white",
            hatch=hatch,
            capsize=3,
            label="where the base's plans lead" if hatch else "data set windows",
        )
    axes.set(xticks=range(len(report.gap)), ylabel="one-step visual error")
    axes.set_xticklabels([each.model for each in report.gap], fontsize=8)
    axes.margins(y=0.25)
    axes.set_title("One-step prediction error (95 % intervals; hatched: where the base's plans lead)", fontsize=10)
    return figure
