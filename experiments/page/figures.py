"""Figures of the page and of the study's files: why plans fail, and small intervals within tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from experiments.page.diagnoses import Diagnosis
from experiments.page.keys import Keys, used_goals
from experiments.page.svg import Scale, drawing, linear, logarithmic, named_ends, number, polyline, tag, text
from experiments.report import Rate, Report
from experiments.wording import percent

WIDTH, HEIGHT = 380, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 274, 26, 204
WHERE = {"dataset": ("data set", 5), "planned": ("planned", 1), "random": ("random", 4)}


def interval_bar(mean: Rate, low: float, high: float, zero: float | None = None, _class: str = "ink") -> Markup:
    """Draw an interval as a line with a dot, to stand in a cell; the cell says the numbers."""
    x = Scale(low, high, 5, 115)
    ends = [x(end) for end in (mean.low, mean.high) if end is not None]
    parts = [tag("line", x1=5, x2=115, y1=8, y2=8, _class="grid")]
    if zero is not None:
        parts.append(tag("line", x1=x(zero), x2=x(zero), y1=1, y2=15, _class="axis"))
    if len(ends) == 2:
        parts.append(tag("line", x1=ends[0], x2=ends[1], y1=8, y2=8, _class=f"bar {_class}"))
    parts.append(tag("circle", cx=x(mean.mean), cy=8, r=4, _class=f"mark {_class}"))
    return tag("svg", *parts, viewBox="0 0 120 16", _class="interval", aria_hidden="true")


def lines(
    name: str,
    title: str,
    series: Mapping[str, tuple[int, Sequence[Rate | None]]],
    axes: tuple[str, str],
    top: float,
) -> Markup:
    """Draw means by step with their intervals as bands, each named at its end.

    Args:
        name: For the element's ids.
        title: Of the figure.
        series: Name -> number of its colour, and the mean of every step, counted from 1.
        axes: Names of x and y.
        top: Highest value of the y axis.
    """
    longest = max(len(values) for _, values in series.values())
    x, y = Scale(1, max(2, longest), LEFT, RIGHT), linear([0, top], BOTTOM, TOP)
    parts, ends, said = [_frame(x, y, axes, whole=True)], [], []
    for label, (hue, values) in series.items():
        known = [(x(step), mean) for step, mean in enumerate(values, start=1) if mean is not None]
        if not known:
            continue
        band = [(at, y(m.high)) for at, m in known if m.high is not None]
        band += [(at, y(m.low)) for at, m in reversed(known) if m.low is not None]
        colour = f"c{hue}"
        points = " ".join(f"{at:.2f},{height:.2f}" for at, height in band)
        parts.append(tag("polygon", points=points, _class=f"band {colour}"))
        parts.append(polyline([(at, y(mean.mean)) for at, mean in known], _class=f"line {colour}"))
        parts += [tag("circle", cx=at, cy=y(mean.mean), r=2.6, _class=f"mark {colour}") for at, mean in known]
        ends.append((label, known[-1][0], y(known[-1][1].mean), colour))
        said.append(f"{label}: {', '.join(number(mean.mean) for _, mean in known)}")
    parts += named_ends(ends, RIGHT, TOP, BOTTOM)
    return drawing(name, WIDTH, HEIGHT, title, f"{axes[1]} by {axes[0]}. {'. '.join(said)}.", *parts)


def exploitation(name: str, title: str, why: Diagnosis) -> Markup | None:
    """Draw the cost of each plan as imagined and as it came true, on equal axes."""
    if why.exploitation is None:
        return None
    pairs = [(a, b) for a, b in zip(why.exploitation.imagined, why.exploitation.true, strict=True)
             if a is not None and b is not None]  # fmt: skip
    if not pairs:
        return None
    every = [value for pair in pairs for value in pair]
    log = min(every) > 0 and max(every) / min(every) > 30
    x, y = (logarithmic(every, *ends) if log else linear(every, *ends) for ends in ((LEFT, LEFT + 178), (BOTTOM, TOP)))
    beyond = sum(b > a for a, b in pairs)
    scale = " (log scale)" if log else ""
    return drawing(
        name,
        WIDTH,
        HEIGHT,
        title,
        f"One point per episode; {beyond} of {len(pairs)} plans came true costlier than imagined.",
        _frame(x, y, (f"cost as imagined{scale}", "cost as it came true")),
        polyline([(x(x.low), y(x.low)), (x(x.high), y(x.high))], _class="dotted"),
        text(LEFT + 186, TOP + 12, "as imagined", "note"),
        text(LEFT + 186, TOP + 38, f"{beyond} of {len(pairs)} plans", "name"),
        text(LEFT + 186, TOP + 53, "cost more than", "name"),
        text(LEFT + 186, TOP + 68, "was imagined", "name"),
        *(tag("circle", cx=x(a), cy=y(b), r=3.6, _class="mark c0 faint") for a, b in pairs),
    )


def success_by_distance(report: Report, keys: Keys, planner: str) -> Markup | None:
    """Draw success of one planner over the distance of goals, a line per model; None for a single distance."""
    goals = used_goals(report)
    series: dict[str, list[Rate | None]] = {}
    for model in keys.models:
        found = {row.goals: row.success for row in report.rows if (row.model, row.planner) == (model, planner)}
        if found:
            series[model] = [found.get(name) for name in goals]
    if len({report.goals[name].raw_steps for name in goals}) < 2 or not series or keys.curves.get(planner):
        return None
    steps = [float(report.goals[name].raw_steps or 0) for name in goals]
    x, y = Scale(min(steps) - 5, max(steps) + 5, LEFT, RIGHT), Scale(0, 1, BOTTOM, TOP)
    parts = [_frame(x, y, ("raw steps to the goal", "solved, %"), steps, percent=True)]
    ends, said = [], []
    for index, (model, rates) in enumerate(series.items()):
        colour, shift = f"c{keys.colour(model)}", 3.5 * (index - (len(series) - 1) / 2)
        known = [(x(step) + shift, rate) for step, rate in zip(steps, rates, strict=True) if rate is not None]
        parts.append(polyline([(at, y(rate.mean)) for at, rate in known], _class=f"line {colour}"))
        for at, rate in known:
            if rate.low is not None and rate.high is not None:
                parts.append(tag("line", x1=at, x2=at, y1=y(rate.low), y2=y(rate.high), _class=f"bar {colour}"))
            parts.append(tag("circle", cx=at, cy=y(rate.mean), r=3.4, _class=f"mark {colour}"))
        ends.append((model, known[-1][0], y(known[-1][1].mean), colour))
        said.append(f"{model}: {', '.join(percent(rate.mean) for _, rate in known)}")
    parts += named_ends(ends, RIGHT, TOP, BOTTOM)
    name = f"distance-{keys.planners.index(planner)}"
    return drawing(name, WIDTH, HEIGHT, f"Success by distance, {planner}", f"{'. '.join(said)}.", *parts)


def _frame(
    x: Scale,
    y: Scale,
    names: tuple[str, str],
    at: Sequence[float] | None = None,
    percent: bool = False,
    whole: bool = False,
) -> Markup:
    parts = []
    for value in y.ticks(5):
        shown = f"{100 * value:.0f}" if percent else number(value)
        parts.append(tag("line", x1=x.start, x2=x.stop, y1=y(value), y2=y(value), _class="grid"))
        parts.append(text(x.start - 6, y(value) + 4, shown, "tick", "end"))
    ticks = x.ticks(6) if at is None else at
    for value in ticks:
        if not whole or math.isclose(value, round(value)):
            parts.append(text(x(value), y.start + 17, number(value), "tick", "middle"))
            parts.append(tag("line", x1=x(value), x2=x(value), y1=y.start, y2=y.start + 4, _class="axis"))
    parts.append(tag("line", x1=x.start, x2=x.stop, y1=y.start, y2=y.start, _class="axis"))
    parts.append(text((x.start + x.stop) / 2, y.start + 36, names[0], "label", "middle"))
    return tag("g", *parts, text(0, 12, names[1], "label"))
