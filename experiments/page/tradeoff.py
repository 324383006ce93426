"""The first figures: success against what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from experiments.page.keys import Keys
from experiments.page.svg import Scale, drawing, logarithmic, marker, named_ends, number, polyline, short, tag, text
from experiments.report import Goals, Report, Row
from experiments.wording import percent_of

WIDTH, HEIGHT = 410, 288
LEFT, RIGHT, TOP, BOTTOM = 32, 310, 50, 246
LETTER = 6.4  # pixels of a letter, about


@dataclass(frozen=True)
class Currency:
    """What success is set against."""

    key: str
    title: str
    axis: str
    unit: str
    of: Callable[[Row], float | None]


CURRENCIES = (
    Currency(
        "success_seconds", "Success against planning time", "planning seconds per episode (log scale)", "s",
        lambda row: row.cost.planning_seconds,
    ),
    Currency(
        "success_tflop", "Success against computation", "TFLOP per episode (log scale)", "TFLOP",
        lambda row: row.cost.tflop.total,
    ),
)  # fmt: skip


def tradeoff(report: Report, keys: Keys, goals: str, currency: Currency) -> Markup | None:
    """Draw success with its intervals over a currency; None where nothing is known of it."""
    known = [(row, value) for row in report.rows if row.goals == goals and (value := currency.of(row))]
    if not known:
        return None
    every = [value for row in report.rows if (value := currency.of(row))]  # the same axis for all distances
    x, y = logarithmic(every, LEFT, RIGHT), Scale(0, 1, BOTTOM, TOP)
    places = _places(known, x, y, keys)
    said = "; ".join(
        f"{row.model} with {row.planner}: {percent_of(row.success)} at {number(value)} {currency.unit}"
        for row, value in known
    )
    return drawing(
        f"{currency.key}-{list(report.goals).index(goals)}",
        WIDTH,
        HEIGHT,
        f"{currency.title}, goals {goals}",
        f"Success rate with 95 % intervals, by {currency.axis}. {said}.",
        _axes(x, y, currency.axis),
        _floors(report.goals[goals], y, places),
        _planners(places, keys),
        _models(places, keys),
    )


Placed = tuple[Row, float, float]
"""A row and where its point is."""


def _places(known: Sequence[tuple[Row, float]], x: Scale, y: Scale, keys: Keys) -> list[Placed]:
    """Put points side by side whose planner and cost are the same, a few pixels apart."""
    places = []
    for row, value in known:
        same = [other for other, its in known if other.planner == row.planner and abs(x(its) - x(value)) < 1.5]
        apart = min(7.0, 30 / len(same))
        shift = apart * (same.index(row) - (len(same) - 1) / 2)
        places.append((row, x(value) + shift, y(row.success.mean)))
    return places


def _axes(x: Scale, y: Scale, label: str) -> Markup:
    lines = [
        tag("line", x1=LEFT, x2=RIGHT, y1=y(value), y2=y(value), _class="grid") for value in (0, 0.25, 0.5, 0.75, 1)
    ]
    names = [text(LEFT - 7, y(value) + 4, f"{100 * value:.0f}", "tick", "end") for value in (0, 0.25, 0.5, 0.75, 1)]
    for value in x.ticks():
        at = x(value)
        lines.append(tag("line", x1=at, x2=at, y1=BOTTOM, y2=BOTTOM + 4, _class="axis"))
        names.append(text(at, BOTTOM + 18, number(value), "tick", "middle"))
    base = tag("line", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM, _class="axis")
    caption = text((LEFT + RIGHT) / 2, BOTTOM + 37, label, "label", "middle")
    return tag("g", *lines, base, *names, caption, text(0, 11, "solved, %", "label"))


def _floors(goals: Goals, y: Scale, places: Sequence[Placed]) -> Markup:
    """Lines for what is reached without planning, and with a perfect model."""
    floors = {"doing nothing": goals.floors.nothing, "random actions": goals.floors.random}
    lines = [(rate.mean, name) for name, rate in floors.items() if rate]
    if goals.ceilings:
        best = max(goals.ceilings, key=lambda ceiling: ceiling.success.mean)
        lines.append((best.success.mean, "simulator as model"))
    lines.sort()
    merged: list[tuple[float, str]] = []
    for value, name in lines:
        if merged and abs(value - merged[-1][0]) < 0.035:
            merged[-1] = (merged[-1][0], f"{merged[-1][1]}, {name}")
        else:
            merged.append((value, name))
    parts = []
    for value, name in merged:
        at, width = y(value), LETTER * len(name) + 40
        parts.append(tag("line", x1=LEFT, x2=RIGHT, y1=at, y2=at, _class="dotted"))
        label = f"{name} {100 * value:.0f} %"
        parts.append(text(*_free_place(at, width, y, places), label, "note halo"))
    return tag("g", *parts)


def _free_place(line: float, width: float, y: Scale, places: Sequence[Placed]) -> tuple[float, float]:
    """Where a label of a line hides the fewest points and intervals, above the line if it can be."""
    heights = [height for height in (line - 4, line + 12) if TOP + 8 < height < BOTTOM - 2] or [line - 4]
    starts = [LEFT + 4 + step * (RIGHT - LEFT - 4 - width) / 8 for step in range(9)]
    spans = []
    for row, at, point in places:
        rate = row.success
        low, high = (rate.mean if end is None else end for end in (rate.low, rate.high))
        spans.append((at, y(high), y(low), point))

    def hidden(start: float, height: float) -> int:
        beside = [span for span in spans if start - 8 < span[0] < start + width]
        over = sum(top < height and bottom > height - 9 for _, top, bottom, _ in beside)
        return over + 2 * sum(height - 17 < point < height + 7 for *_, point in beside)

    return min(((start, height) for height in heights for start in starts), key=lambda place: hidden(*place))


def _planners(places: Sequence[Placed], keys: Keys) -> Markup:
    """Name every planner above its points, with its shape."""
    parts, ends = [], [-1e9, -1e9, -1e9]  # where the last name of each line ends
    found = [(median(at for row, at, _ in places if keys.family(row.planner) == name), name) for name in keys.families
             if any(keys.family(row.planner) == name for row, _, _ in places)]  # fmt: skip
    for at, name in sorted(found):
        label = short(name)
        width = LETTER * len(label) + 14
        start = min(max(at - width / 2, LEFT), WIDTH - width)
        line = next((i for i, end in enumerate(ends) if end + 14 < start), ends.index(min(ends)))
        ends[line] = start + width
        height = TOP - 12 - 14 * line
        top = min(place for row, _, place in places if keys.family(row.planner) == name)
        parts += [
            tag("line", x1=at, x2=at, y1=height + 5, y2=max(height + 5, top - 12), _class="lead"),
            marker(keys.shape(name), start + 5, height - 4, 4, _class="mark ink"),
            tag("text", label, tag("title", name), x=start + 14, y=height, _class="name halo"),
        ]
    return tag("g", *parts)


def _models(places: Sequence[Placed], keys: Keys) -> Markup:
    """Draw the points of every model, joined by a line that ends at its name."""
    parts: list[Markup] = []
    ends: list[tuple[str, float, float, str]] = []
    for model in keys.models:
        own = sorted((place for place in places if place[0].model == model), key=lambda place: place[1])
        if not own:
            continue
        colour = f"c{keys.colour(model)}"
        parts += [polyline([(at, y) for _, at, y in line], _class=f"join {colour}") for line in _lines(own, keys)]
        ends.append((model, own[-1][1], own[-1][2], colour))
        parts += [_point(place, keys, colour) for place in own]
    return tag("g", *parts, *named_ends(ends, RIGHT, TOP, BOTTOM, gap=7))


def _lines(own: Sequence[Placed], keys: Keys) -> list[list[Placed]]:
    """Which points are joined: those of a curve, else all of a model."""
    lines: dict[str | None, list[Placed]] = {}
    for place in own:
        lines.setdefault(keys.curves.get(place[0].planner), []).append(place)
    return list(lines.values())


def _point(place: Placed, keys: Keys, colour: str) -> Markup:
    row, at, y = place
    low, high = row.success.low, row.success.high
    bar: list[Markup] = []
    if low is not None and high is not None:
        scale = Scale(0, 1, BOTTOM, TOP)
        bar = [tag("line", x1=at, x2=at, y1=scale(low), y2=scale(high), _class=f"bar {colour}")]
    name = f"{row.model}, {row.planner}: {percent_of(row.success)} of {row.episodes} episodes"
    return tag("g", tag("title", name), *bar, marker(keys.shape(row.planner), at, y, 4.8, _class=f"mark {colour}"))
