"""Contacts at which an agent can push a block of PushT, what each push does, and the way round the block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.pusht.physics import AGENT_RADIUS
from envs.pusht.shapes import BLOCKS

Floats = NDArray[np.float64]
Places = NDArray[np.complexfloating[Any, Any]]
Rectangle = tuple[float, float, float, float]

_RING_GAP = 12.0  # between the agent on its way round and the block's convex hull, pixels
_RING_SPACING = 8.0
_CONTACT_SPACING = 5.0
_FROM_CORNER = 3.0  # of the nearest contact: on the corner the agent would slip off
_CLEARANCE = 2.0  # from the other parts of the block on the way to a contact
_FAR = 200.0  # no block is that large
_HEADINGS = 720


@dataclass(frozen=True, eq=False)
class Contacts:
    """The contacts of one block; places and vectors are complex numbers x + iy, pixels, y downwards.

    They are in the block's own directions, about its centre of gravity.

    Contacts have no friction, and what is not pushed stands still. So while the agent goes forward by a small u, a
    block of mass 1 and moment of inertia I moves by u / (1 + lever^2 / I) in the same direction and turns by lever / I
    times that. With angles in units of 1 / gyration, where gyration^2 = I, this is u * push / |push|^2.

    Attributes:
        points: (n,), the agent's centre when it touches the block.
        inward: (n,), of length 1, the direction in which it pushes.
        pushes: (n, 3), ``inward`` and the lever in units of ``gyration``, positive if the block turns clockwise.
        exits: (n,), index of the place on the ring from which the way to the contact is straight and free.
        ring: (m,), places for the agent's centre round the block, evenly spaced.
        outward: (m,), of length 1, the directions away from the block there.
        spacing: Distance of neighbours on the ring, pixels.
        gyration: Radius of gyration, pixels.
        center: The centre of gravity from the block's origin.
    """

    points: Places
    inward: Places
    pushes: Floats
    exits: NDArray[np.intp]
    ring: Places
    outward: Places
    spacing: float
    gyration: float
    center: complex

    def outside(self, place: complex) -> Floats:
        """Measure how far a place lies beyond the ring's tangents, (m,).

        From there, the points of the positive ones can be seen. All are negative inside the ring.
        """
        return ((place - self.ring) * self.outward.conj()).real

    def along_ring(self, index: int) -> Floats:
        """Lengths (m,) of the ways along the ring to its point ``index``."""
        steps = np.abs(np.arange(len(self.ring)) - index)
        return np.minimum(steps, len(steps) - steps) * self.spacing


@cache
def contacts(shape: str) -> Contacts:
    """Compute the contacts of the block with this name."""
    block = BLOCKS[shape]
    center = complex(*block.center_of_gravity)
    gyration = math.sqrt(sum(_moment(block.rectangles[index]) for index in block.inertia_of))
    ring, outward, spacing = _ring(np.array([complex(*c) for corners in block.polygons for c in corners]) - center)
    found = []
    for rectangle in block.rectangles:
        others = [other for other in block.rectangles if other != rectangle]
        for touched, away in _faces(rectangle):
            way = touched + away * np.arange(AGENT_RADIUS, _FAR)
            if all(_distances(way, other).min() >= AGENT_RADIUS + _CLEARANCE for other in others):
                gaps = np.abs(way[:, None] - center - ring)
                found.append((way[0] - center, -away, gaps.min(0).argmin()))
    points, inward, exits = (np.array(column) for column in zip(*found, strict=True))
    levers = (points.conj() * inward).imag
    pushes = np.stack((inward.real, inward.imag, levers / gyration), 1)
    return Contacts(points, inward, pushes, exits, ring, outward, spacing, gyration, center)


def _moment(rectangle: Rectangle) -> float:
    """Compute the moment of a rectangle of mass 1 about the block's origin, as the simulator counts it."""
    left, top, right, bottom = rectangle
    return ((right - left) ** 2 + (bottom - top) ** 2) / 12 + ((left + right) ** 2 + (top + bottom) ** 2) / 4


def _faces(rectangle: Rectangle) -> Iterator[tuple[complex, complex]]:
    """Places on the edges of a rectangle, each with the direction away from it."""
    left, top, right, bottom = rectangle
    for x in _spread(left, right):
        yield complex(x, top), -1j
        yield complex(x, bottom), 1j
    for y in _spread(top, bottom):
        yield complex(left, y), -1
        yield complex(right, y), 1


def _spread(low: float, high: float) -> list[float]:
    count = round((high - low - 2 * _FROM_CORNER) / _CONTACT_SPACING) + 1
    spread: list[float] = np.linspace(low + _FROM_CORNER, high - _FROM_CORNER, count).tolist()
    return spread


def _distances(places: Places, rectangle: Rectangle) -> Floats:
    left, top, right, bottom = rectangle
    nearest = np.clip(places.real, left, right) + 1j * np.clip(places.imag, top, bottom)
    return np.abs(places - nearest)


def _ring(corners: Places) -> tuple[Places, Places, float]:
    """Evenly spaced places round the convex hull of ``corners``, the directions away from it, and the spacing."""
    directions = np.exp(1j * np.linspace(0, 2 * math.pi, _HEADINGS + 1))
    farthest = corners[(directions[:, None].conj() * corners).real.argmax(1)]
    line = farthest + (AGENT_RADIUS + _RING_GAP) * directions
    along = np.concatenate(([0.0], np.abs(np.diff(line)).cumsum()))
    count = round(along[-1] / _RING_SPACING)
    at = np.linspace(0, along[-1], count, endpoint=False)
    outward = np.interp(at, along, directions)
    return np.interp(at, along, line), outward / np.abs(outward), float(along[-1]) / count
