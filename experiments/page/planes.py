"""The objective over a plane of action space, by the model and by the simulator, as filled contours."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import contourpy
import numpy as np
from markupsafe import Markup

from experiments.page.diagnoses import Plane
from experiments.page.svg import Scale, drawing, marker, number, tag, text

SIDE, GAP, TOP, LEFT = 190, 22, 24, 6
LEVELS = 9


def plane_pair(name: str, plane: Plane) -> Markup:
    """Draw both sides on the same levels, with the named points on either."""
    sides = {"by the model": np.array(plane.model, float), "by the simulator": np.array(plane.simulator, float)}
    both = np.concatenate([side.ravel() for side in sides.values()])
    finite = both[np.isfinite(both)]
    levels = np.unique(np.quantile(finite, np.linspace(0, 1, LEVELS + 1)))  # equal areas: costs span decades
    drawn = [
        _side(plane, side, levels, title, LEFT + column * (SIDE + GAP))
        for column, (title, side) in enumerate(sides.items())
    ]
    first, second = (_lowest(plane, side) for side in sides.values())
    described = (
        f"Contours of the objective around episode {plane.episode}, from {number(float(finite.min()))} to "
        f"{number(float(finite.max()))}. The lowest points of both sides are {number(math.dist(first, second))} apart. "
        f"Marked: {', '.join(point.name for point in plane.points)}."
    )
    title = f"Episode {plane.episode}: the objective in a plane"
    names = [
        text(LEFT, TOP + SIDE + 42 + 15 * i, f"{i + 1}  {point.name}", "name") for i, point in enumerate(plane.points)
    ]
    size = 2 * SIDE + GAP + 2 * LEFT, SIDE + TOP + 34 + 15 * len(names)
    return drawing(name, *size, title, described, *drawn, _legend(levels), *names)


def _lowest(plane: Plane, side: np.ndarray) -> tuple[float, float]:
    row, column = divmod(int(np.nanargmin(side)), side.shape[1])
    return plane.x[column], plane.y[row]


def _side(plane: Plane, values: np.ndarray, levels: np.ndarray, title: str, left: float) -> Markup:
    x = Scale(min(plane.x), max(plane.x), left, left + SIDE)
    y = Scale(min(plane.y), max(plane.y), TOP + SIDE, TOP)
    generator = contourpy.contour_generator(plane.x, plane.y, np.ma.masked_invalid(values), fill_type="OuterOffset")
    corner = np.array([min(plane.x), min(plane.y)])
    per_unit = np.array([SIDE, -SIDE]) / (np.array([max(plane.x), max(plane.y)]) - corner)
    parts = [text(left, 14, title, "name")]
    for level, (low, high) in enumerate(pairwise(levels)):
        filled: Any = generator.filled(low, high if level < len(levels) - 2 else np.inf)
        for outline, ends in zip(*filled, strict=True):
            pixels = (outline - corner) * per_unit + [left, TOP + SIDE]
            rings = [pixels[a:b].tolist() for a, b in pairwise(ends)]
            path = "".join("M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in ring) + "Z" for ring in rings)
            parts.append(tag("path", d=path, _class=f"level{level}", fill_rule="evenodd"))
    places: dict[tuple[float, float], list[str]] = {}
    for number_of, point in enumerate(plane.points, start=1):
        at = x(point.x), y(point.y)
        near = next((other for other in places if math.dist(at, other) < 9), at)  # points at one place share a mark
        places.setdefault(near, []).append(str(number_of))
    for (at_x, at_y), numbers in places.items():
        is_right = at_x > left + SIDE / 2
        parts.append(marker("cross", at_x, at_y, 4, _class="spot"))
        beside, anchor = (at_x - 8, "end") if is_right else (at_x + 8, "start")
        parts.append(text(beside, at_y + 4, ", ".join(numbers), "spotname", anchor))
    return tag("g", *parts)


def _legend(levels: np.ndarray) -> Markup:
    width, top = 14, TOP + SIDE + 12
    parts: list[Markup] = [
        tag("rect", x=LEFT + 60 + width * i, y=top, width=width, height=8, _class=f"level{i}")
        for i in range(len(levels) - 1)
    ]
    parts.append(text(LEFT, top + 9, f"low {number(float(levels[0]))}", "tick"))
    parts.append(text(LEFT + 68 + width * (len(levels) - 1), top + 9, f"high {number(float(levels[-1]))}", "tick"))
    return tag("g", *parts)
