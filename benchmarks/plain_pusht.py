"""The plain way to a PushT image: pymunk's debug drawing, a callback per shape. Slow; the fast one equals it."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pymunk
from numpy.typing import NDArray

from envs.pusht.render import pygame  # without its greeting
from envs.pusht.shapes import BLOCKS
from envs.pusht.simulator import SHAPES, PushTSimulator

WINDOW = 512


def plain_image(simulator: PushTSimulator, shape: int = 0) -> NDArray[np.uint8]:
    """The image (S, S, 3) uint8 of a simulator's state: everything is drawn anew, then shrunk."""
    size = (simulator.image_size, simulator.image_size)
    return np.asarray(cv2.resize(debug_drawing(simulator, shape)[0], size), np.uint8)


def debug_drawing(simulator: PushTSimulator, shape: int) -> tuple[NDArray[np.uint8], list[Any]]:
    """The window (512, 512, 3) uint8 of a simulator, and the contact lines in it."""
    surface = pygame.Surface((WINDOW, WINDOW))
    surface.fill("white")
    goal = pymunk.Body(1, 1)
    goal.position, goal.angle = (256, 256), math.pi / 4
    for corners in BLOCKS[SHAPES[shape]].polygons:
        pygame.draw.polygon(surface, "LightGreen", [_pixel(goal.local_to_world(corner)) for corner in corners])
    assert simulator._world is not None, "reset comes first"
    space = simulator._world._space
    for part in space.shapes:
        kind = {pymunk.Circle: "RoyalBlue", pymunk.Poly: "LightSlateGray", pymunk.Segment: "LightGray"}[type(part)]
        part.color = pygame.Color(kind)
    drawing = _DebugDrawing(surface)
    space.debug_draw(drawing)
    return pygame.surfarray.array3d(surface).transpose(1, 0, 2).copy(), drawing.contacts


class _DebugDrawing(pymunk.SpaceDebugDrawOptions):
    """pymunk calls back for every shape and contact; colours come from the shapes."""

    def __init__(self, surface: pygame.Surface) -> None:
        super().__init__()
        self.surface = surface
        self.contacts: list[Any] = []

    def draw_circle(self, pos: Any, angle: Any, radius: Any, outline_color: Any, fill_color: Any) -> None:
        pygame.draw.circle(self.surface, fill_color.as_int(), _pixel(pos), round(radius), 0)
        pygame.draw.circle(self.surface, _pale(fill_color), _pixel(pos), round(radius - 4), 0)

    def draw_segment(self, a: Any, b: Any, color: Any) -> None:
        self.contacts.append((a, b))
        pygame.draw.aalines(self.surface, color.as_int(), False, [_pixel(a), _pixel(b)])

    def draw_fat_segment(self, a: Any, b: Any, radius: Any, outline_color: Any, fill_color: Any) -> None:
        (x0, y0), (x1, y1), color = _pixel(a), _pixel(b), fill_color.as_int()
        pygame.draw.lines(self.surface, color, False, [(x0, y0), (x1, y1)], round(2 * radius))
        across = pymunk.Vec2d(abs(y1 - y0), abs(x1 - x0)).scale_to_length(radius)
        u, v = _pixel(across)
        corners = [(x0 - u, y0 - v), (x0 + u, y0 + v), (x1 + u, y1 + v), (x1 - u, y1 - v)]
        pygame.draw.polygon(self.surface, color, corners)
        for end in ((x0, y0), (x1, y1)):
            pygame.draw.circle(self.surface, color, end, round(radius))

    def draw_polygon(self, verts: Any, radius: Any, outline_color: Any, fill_color: Any) -> None:
        pygame.draw.polygon(self.surface, _pale(fill_color), [_pixel(vertex) for vertex in verts])
        for i in range(len(verts)):
            self.draw_fat_segment(verts[i - 1], verts[i], 2, fill_color, fill_color)


def _pixel(point: Any) -> tuple[int, int]:
    return round(point[0]), round(point[1])


def _pale(color: Any) -> tuple[int, ...]:
    return tuple(round(min(1.2 * component, 255)) for component in color[:3])
