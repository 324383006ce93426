"""The report's figures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from demo.scores import Gap, Score
from utils.pages import save_figure

COLOURS = {"base": "#7f7f7f", "control": "#b5b5b5", "online": "#1f77b4", "adversarial": "#d62728"}


def draw_all(
    scores: Sequence[Score],
    gaps: Sequence[Gap],
    prefix: str,
    drawn_from: str,
    names: Collection[str] = ("success", "gap", "time"),
) -> dict[str, Path]:
    """Draw the figures of those names; returns title -> PNG.

    Args:
        prefix: What a file's name begins with, folder included.
        drawn_from: Digest of the numbers, kept in the files.
    """
    figures = {
        "success": ("Success", lambda: _success(scores)),
        "gap": ("Train-test gap of the model", lambda: _gap(gaps)),
        "time": ("Success against planning time", lambda: _time(scores)),
    }
    paths = {}
    for name in names:
        title, draw = figures[name]
        paths[title] = Path(f"{prefix}{name}.png")
        save_figure(draw(), paths[title], drawn_from)
    return paths


def _success(scores: Sequence[Score]) -> Figure:
    planners = list(dict.fromkeys(score.planner for score in scores))
    models = list(dict.fromkeys(score.model for score in scores))
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(models)
    for i, model in enumerate(models):
        of_model = [score for score in scores if score.model == model]
        at = [planners.index(score.planner) + (i - (len(models) - 1) / 2) * width for score in of_model]
        rates = [100 * score.success for score in of_model]
        spread = [[100 * (s.success - s.low) for s in of_model], [100 * (s.high - s.success) for s in of_model]]
        axes.bar(at, rates, width * 0.92, color=COLOURS.get(model), label=model)
        axes.errorbar(at, rates, spread, fmt="none", color="black", capsize=3, linewidth=1)
    axes.set(xticks=range(len(planners)), ylim=(0, 100), ylabel="solved episodes, %")
    axes.set_xticklabels([f"{planner} in MPC" for planner in planners])
    axes.set_title("Success (bars: 95 % Wilson intervals, same episodes for all)", fontsize=10)
    axes.legend(ncols=len(models), fontsize=8, loc="lower center")
    return figure


def _gap(gaps: Sequence[Gap]) -> Figure:
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for offset, where, label, hatch in (
        (-0.2, "dataset", "data set windows", None),
        (0.2, "planner", "where the base's plans lead", "//"),
    ):
        pairs = [getattr(gap, where) for gap in gaps]
        axes.bar(
            [i + offset for i in range(len(gaps))],
            [mean for mean, _ in pairs],
            0.36,
            yerr=[half for _, half in pairs],
            color=[COLOURS.get(gap.model) for gap in gaps],
            edgecolor="white",
            hatch=hatch,
            capsize=3,
            label=label,
        )
    highest = max(sum(pair) for gap in gaps for pair in (gap.dataset, gap.planner))
    axes.set(xticks=range(len(gaps)), ylabel="one-step visual error", ylim=(0, 1.3 * highest))  # room for the legend
    axes.set_xticklabels([gap.model for gap in gaps])
    axes.set_title("One-step prediction error (mean, 95 % interval)", fontsize=10)
    handles = axes.get_legend_handles_labels()[0]
    axes.legend(handles, ["data set windows", "hatched: where the base's plans lead"], fontsize=8)
    return figure


def _time(scores: Sequence[Score]) -> Figure:
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    markers = dict(zip(dict.fromkeys(s.planner for s in scores), "osD^v", strict=False))
    for score in scores:
        rate = 100 * score.success
        spread = [[rate - 100 * score.low], [100 * score.high - rate]]
        axes.errorbar(
            score.seconds, rate, spread, marker=markers[score.planner], color=COLOURS.get(score.model), capsize=2,
            label=f"{score.planner}, {score.model}",
        )  # fmt: skip
    axes.set(xlabel="planning seconds per episode, wall clock", ylabel="solved episodes, %", ylim=(0, 100))
    axes.set_xlim(left=0)
    axes.legend(fontsize=7, ncols=2)
    return figure
