"""The blocks that PushT knows: which rectangles each is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from envs.simulator import EpisodeLayout

Point = tuple[float, float]


@dataclass(frozen=True)
class Block:
    """A rigid block of mass 1 made of rectangles, in pixels of its own coordinates, y downwards.

    Attributes:
        rectangles: Left, top, right and bottom of each. Their order is part of the dynamics: contacts are solved in it.
        inertia_of: The rectangles whose moments about the origin add up to the block's. Some blocks count one twice
            and another not at all, which the original does and the released data have in them.
    """

    rectangles: tuple[tuple[float, float, float, float], ...]
    inertia_of: tuple[int, ...]

    @property
    def polygons(self) -> list[list[Point]]:
        """The corners of each rectangle, clockwise on the screen."""
        return [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, y0, x1, y1 in self.rectangles]

    def placed(self, x: float, y: float, angle: float) -> list[list[Point]]:
        """The corners of each rectangle on the table if the block's origin is at (x, y)."""
        cos, sin = math.cos(angle), math.sin(angle)
        return [[(cos * u - sin * v + x, sin * u + cos * v + y) for u, v in polygon] for polygon in self.polygons]

    @property
    def center_of_gravity(self) -> Point:
        """The mean of the rectangles' centres, whatever their sizes."""
        count = 2 * len(self.rectangles)
        return (
            sum(left + right for left, _, right, _ in self.rectangles) / count,
            sum(top + bottom for _, top, _, bottom in self.rectangles) / count,
        )

    def scaled(self, size: float) -> Block:
        """The block so many times as large."""
        if size == 1:
            return self
        sides = ((left * size, top * size, right * size, bottom * size) for left, top, right, bottom in self.rectangles)
        return Block(tuple(sides), self.inertia_of)

    def distance(self, x: float, y: float, angle: float, to_x: float, to_y: float) -> float:
        """From the block with its origin at (x, y) to a point, pixels; 0 inside it."""
        cos, sin = math.cos(angle), math.sin(angle)
        u, v = cos * (to_x - x) + sin * (to_y - y), cos * (to_y - y) - sin * (to_x - x)
        return min(
            math.hypot(max(left - u, 0, u - right), max(top - v, 0, v - bottom))
            for left, top, right, bottom in self.rectangles
        )


BLOCKS = {
    "T": Block(((-60, 0, 60, 30), (-15, 30, 15, 120)), inertia_of=(0, 0)),
    "L": Block(((0, 0, 40, 80), (0, -40, 80, 0)), inertia_of=(0, 1)),
    "Z": Block(((0, 0, 80, 40), (-40, -40, 40, 0)), inertia_of=(0, 1)),
    "square": Block(((-40, -40, 40, 40),), inertia_of=(0,)),
    "I": Block(((-20, -80, 20, 80),), inertia_of=(0,)),
    "small_tee": Block(((-60, 0, 60, 40), (-20, 40, 20, 80)), inertia_of=(0, 1)),
    "+": Block(((-60, -20, 60, 20), (-20, 20, 20, 60), (-20, -60, 20, -20)), inertia_of=(0, 0, 0)),
}
SHAPE_KEY = "shape"
SHAPES = tuple(BLOCKS)
"""Names of the blocks. A layout says ``shape`` as an index into this tuple; 0, the T, is the default."""


def shape_index(layout: EpisodeLayout) -> int:
    """The block that a layout asks for, as an index into ``SHAPES``.

    Raises:
        ValueError: If there is no such block.
    """
    given = np.asarray(layout.get(SHAPE_KEY, 0))
    for index in range(len(SHAPES)):
        if given.size == 1 and given.item() == index:
            return index
    known = ", ".join(f"{index} = {name}" for index, name in enumerate(SHAPES))
    raise ValueError(f"env pusht: layout shape must be one number out of {known}; got {given.tolist()}")
