"""Small pieces of SVG for the page's figures.

The figures are few and of known shape, and must fit a page that opens offline on a phone, follows its colours in the
dark and on paper, and can be read aloud. plotly's bundle (4.1.2) is 4.8 MB and Vega's (vega 6.4, vega-lite 6.4 and
vega-embed 7.3) 0.8 MB of script, to draw what here are some kilobytes of text that no script need run for, and neither
follows the page's colours or speaks to a screen reader without as much code again. So the figures are written as SVG.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

SHAPES = ("circle", "square", "triangle", "diamond", "down", "cross")
NUM_COLOURS = 8
LONGEST = 18  # letters of a name in a figure


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Write an element; ``_`` in attribute names stands for ``-``, and a leading one is dropped (``_class``)."""
    written = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup().join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{inner}</{name}>" if children else f"<{name}{written}/>")


def _text(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


@dataclass(frozen=True)
class Scale:
    """A map of values to pixels; ``log`` maps their logarithms."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Place a value, at the near end if it lies beyond one."""
        a, b, v = (math.log10(x) if self.log else x for x in (self.low, self.high, max(value, self.low)))
        share = min(1.0, max(0.0, (v - a) / (b - a)))
        return round(self.start + share * (self.stop - self.start), 2)

    def ticks(self, most: int = 6) -> list[float]:
        """Choose round values within the scale."""
        if not self.log:
            step = _round_step((self.high - self.low) / max(1, most - 1))
            first = math.ceil(self.low / step - 1e-9)
            return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = [d * 10.0**e for e in decades for d in digits if self.low <= d * 10.0**e <= self.high * 1.0001]
            if len(found) <= most:
                return found
        return found[:: math.ceil(len(found) / most)]


def linear(values: Iterable[float], start: float, stop: float, zero: bool = True) -> Scale:
    """A linear scale over values with some room above; from 0 if ``zero`` and none is below."""
    found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(found), max(found)
    room = 0.06 * (high - low or abs(high) or 1.0)
    low = 0.0 if zero and low >= 0 else low - room
    return Scale(low, high + room, start, stop)


def logarithmic(values: Iterable[float], start: float, stop: float) -> Scale:
    """A logarithmic scale over the positive values, with room at both ends."""
    found = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    return Scale(min(found) / 1.5, max(found) * 1.5, start, stop, log=True)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(d * power for d in (1, 2, 5, 10) if d * power >= rough * 0.999)


def number(value: float) -> str:
    """Write a number as short as it is told apart: 0.03, 12, 1,200, 3.4e-5."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e7:
        return f"{value:.2g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def marker(shape: str, x: float, y: float, r: float = 4.5, **attributes: object) -> Markup:
    """Draw one of ``SHAPES``."""
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=r, **attributes)
    a = r * 1.15
    corners = {
        "square": [(-0.85 * a, -0.85 * a), (0.85 * a, -0.85 * a), (0.85 * a, 0.85 * a), (-0.85 * a, 0.85 * a)],
        "triangle": [(0, -a), (a, 0.8 * a), (-a, 0.8 * a)],
        "diamond": [(0, -1.2 * a), (a, 0), (0, 1.2 * a), (-a, 0)],
        "down": [(0, a), (a, -0.8 * a), (-a, -0.8 * a)],
        "cross": [
            (-a, -0.35 * a), (-0.35 * a, -0.35 * a), (-0.35 * a, -a), (0.35 * a, -a), (0.35 * a, -0.35 * a),
            (a, -0.35 * a), (a, 0.35 * a), (0.35 * a, 0.35 * a), (0.35 * a, a), (-0.35 * a, a),
            (-0.35 * a, 0.35 * a), (-a, 0.35 * a),
        ],
    }[shape]  # fmt: skip
    points = " ".join(f"{x + dx:.2f},{y + dy:.2f}" for dx, dy in corners)
    return tag("polygon", points=points, **attributes)


def polyline(points: Sequence[tuple[float, float]], **attributes: object) -> Markup:
    """Draw a line through points."""
    return tag("polyline", points=" ".join(f"{x:.2f},{y:.2f}" for x, y in points), **attributes)


def text(x: float, y: float, content: object, _class: str = "", anchor: str | None = None) -> Markup:
    """Write a word at a place."""
    return tag("text", content, x=x, y=y, _class=_class or None, text_anchor=anchor)


def spread(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Move labels as little as possible so that they lie ``apart``, between ``low`` and ``high`` where they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    before = low - apart
    for i in order:
        before = placed[i] = max(wanted[i], before + apart)
    after = max(high, low + apart * (len(wanted) - 1)) + apart
    for i in reversed(order):
        after = placed[i] = min(placed[i], after - apart)
    return placed


def short(name: str, longest: int = LONGEST) -> str:
    """Cut a name that would not fit."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def named_ends(
    ends: Sequence[tuple[str, float, float, str]], right: float, top: float, bottom: float, gap: float = 4
) -> list[Markup]:
    """Write names to the right of a figure, each joined to the end of its line.

    Args:
        ends: Name, x, y and colour (as in the class ``c0``) of each.
        right: Where the figure ends, pixels.
        top: Of the room for names.
        bottom: Of the same.
        gap: Between an end and the line that leads from it.
    """
    parts = []
    heights = spread([y for _, _, y, _ in ends], 14, top, bottom)
    for (name, x, y, colour), height in zip(ends, heights, strict=True):
        path = [(x + gap, y), (right + 7, height), (right + 10, height)]
        parts.append(polyline(path, _class=f"lead {colour}"))
        label = short(name, 14)
        parts.append(tag("text", label, tag("title", name), x=right + 13, y=height + 4, _class=f"name text {colour}"))
    return parts


def drawing(name: str, width: float, height: float, title: str, description: str, *parts: object) -> Markup:
    """Put a figure together; ``description`` says in words what it shows, for who cannot see it."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-text"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{name}-title {name}-text",
        _class="figure",
    )
