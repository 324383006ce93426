"""Images of PushT: the look of pymunk's debug drawing, drawn directly and only where something moves."""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
from numpy.typing import NDArray

from envs.pusht.physics import AGENT_RADIUS, WALL_RADIUS, WALLS, WINDOW_SIZE
from envs.pusht.shapes import Block, Point

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # or importing it prints a greeting
import pygame

Line = tuple[Point, Point]
Pixel = tuple[int, int]
Color = tuple[int, int, int]

GOAL_POSE = (256.0, 256.0, math.pi / 4)  # x, y, angle of the landmark in the background
WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)
LIGHT_GREEN: Color = (144, 238, 144)
LIGHT_GRAY: Color = (211, 211, 211)
SLATE_GRAY: Color = (119, 136, 153)
ROYAL_BLUE: Color = (65, 105, 225)
CONTACT_RED: Color = (231, 76, 60)

BAR_RADIUS = WALL_RADIUS  # half the width of walls and of the block's edges, pixels
AGENT_RIM = 4  # width of the agent's darker rim, pixels
MARGIN = 6  # no edge or contact is drawn further than this from its end points, pixels
CLEAR_OF_WALLS = pygame.Rect(0, 0, WINDOW_SIZE, WINDOW_SIZE).inflate(-32, -32)  # contains no pixel of a wall
PIXEL_FORMAT = (24, (0x0000FF, 0x00FF00, 0xFF0000, 0))  # three bytes, red first: OpenCV need not copy it
MAX_TILES = 32  # along a side: tiles of 16 pixels; smaller ones would save little


@dataclass(frozen=True)
class Look:
    """Colours, and the agent's radius in pixels."""

    background: Color = WHITE
    landmark: Color = LIGHT_GREEN
    block: Color = SLATE_GRAY
    agent: Color = ROYAL_BLUE
    agent_radius: float = AGENT_RADIUS


@dataclass(frozen=True)
class Disc:
    """Something that lies about: its centre and radius, pixels of the window."""

    centre: Point
    radius: float
    color: Color


@functools.lru_cache(maxsize=64)
def renderer(block: Block, image_size: int, look: Look = Look()) -> Renderer:
    """The renderer for a kind of block and a look, shared by all episodes of the process."""
    return Renderer(block, image_size, look)


class Renderer:
    """Draws scenes with one kind of block; what stays the same is drawn once.

    Filling and shrinking whole windows would take most of the time. Only the tiles in which something may differ from
    the background are shrunk and cleaned again: a tile shrinks by itself to the pixels that it has in the whole image,
    see ``num_tiles``. No display is opened.
    """

    def __init__(self, block: Block, image_size: int, look: Look = Look()) -> None:
        """Draw the background: the walls and, as a landmark, the block at the pose of the original task.

        Args:
            block: What the landmark looks like. The original shows it whatever the goal of planning is.
            image_size: Side of the images, pixels.
            look: Of everything.
        """
        self._look = look
        self._tiles = num_tiles(image_size)
        self._tile = WINDOW_SIZE // self._tiles
        self._image_tile = image_size // self._tiles
        self._walls = _surface(BLACK)
        self._walls.set_colorkey(BLACK)  # nothing but the walls is opaque
        for start, end in WALLS:
            _draw_bar(self._walls, LIGHT_GRAY, _pixel(start), _pixel(end))
        self._background = _surface(look.background)
        for polygon in block.placed(*GOAL_POSE):
            pygame.draw.polygon(self._background, look.landmark, [_pixel(corner) for corner in polygon])
        self._background.blit(self._walls, (0, 0))
        self._empty = cv2.resize(_pixels(self._background), (image_size, image_size))
        self._canvas = self._background.copy()  # and like it again after every image
        self._lock = threading.Lock()  # around the canvas

    def render(
        self,
        agent: Point,
        polygons: Sequence[Sequence[Point]],
        contacts: Sequence[Line],
        discs: Sequence[Disc] = (),
    ) -> NDArray[Any]:
        """Draw a scene.

        Args:
            agent: Its centre, pixels of the 512 x 512 window.
            polygons: Corners of the block's parts.
            contacts: The lines that mark contacts of the block.
            discs: What lies about, beneath everything else that moves.

        Returns:
            (image_size, image_size, 3) uint8 RGB.
        """
        image = self._empty.copy()
        corners = [corner for polygon in polygons for corner in polygon]
        block_area = self._area(corners + [end for line in contacts for end in line], MARGIN)
        agent_area = self._area([agent], self._look.agent_radius + 1)
        disc_areas = [self._area([disc.centre], disc.radius + 1) for disc in discs]
        areas = [area for area in (block_area, agent_area, *disc_areas) if area.width and area.height]
        with self._lock:
            try:
                for disc in discs:
                    pygame.draw.circle(self._canvas, disc.color, _pixel(disc.centre), round(disc.radius))
                if block_area in areas:
                    self._draw_block(polygons)
                if agent_area in areas:
                    self._draw_agent(agent)
                for area in areas:
                    if not CLEAR_OF_WALLS.contains(area):
                        self._canvas.blit(self._walls, area, area)  # they hide what goes through them
                if block_area in areas:
                    self._draw_contacts(contacts)
                for area in areas:
                    self._shrink(area, image)
            finally:
                for area in areas:
                    self._canvas.blit(self._background, area, area)
        return image

    def _area(self, points: Sequence[Point], margin: float) -> pygame.Rect:
        """The tiles of the window in which these points and their surroundings lie, in pixels; may be empty.

        The points may lie anywhere. Only what is visible is drawn, for which pygame's integers are large enough.
        """
        columns, rows = zip(*points, strict=True)
        left, top = (math.floor((min(values) - margin) / self._tile) for values in (columns, rows))
        right, bottom = (math.ceil((max(values) + margin) / self._tile) for values in (columns, rows))
        left, top, right, bottom = (min(max(tile, 0), self._tiles) * self._tile for tile in (left, top, right, bottom))
        return pygame.Rect(left, top, right - left, bottom - top)

    def _draw_block(self, polygons: Sequence[Sequence[Point]]) -> None:
        for polygon in polygons:
            corners = [_pixel(corner) for corner in polygon]
            pygame.draw.polygon(self._canvas, _pale(self._look.block), corners)
            for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
                _draw_bar(self._canvas, self._look.block, start, end)

    def _draw_agent(self, centre: Point) -> None:
        radius, color = round(self._look.agent_radius), self._look.agent
        pygame.draw.circle(self._canvas, color, _pixel(centre), radius)
        pygame.draw.circle(self._canvas, _pale(color), _pixel(centre), radius - AGENT_RIM)

    def _draw_contacts(self, contacts: Sequence[Line]) -> None:
        for start, end in contacts:  # aaline without an s would blend them differently
            pygame.draw.aalines(self._canvas, CONTACT_RED, False, [_pixel(start), _pixel(end)])

    def _shrink(self, area: pygame.Rect, image: NDArray[Any]) -> None:
        """Write an area of the canvas into the image."""
        columns, rows = slice(area.left, area.right), slice(area.top, area.bottom)
        part = image[self._in_image(rows), self._in_image(columns)]
        part[...] = cv2.resize(_pixels(self._canvas)[rows, columns], (part.shape[1], part.shape[0]))

    def _in_image(self, span: slice) -> slice:
        return slice(span.start // self._tile * self._image_tile, span.stop // self._tile * self._image_tile)


def num_tiles(image_size: int) -> int:
    """Into how many tiles along a side a window can be cut that shrink independently of each other; 1 if into none.

    Where a tile is a whole number of pixels before and after, bilinear shrinking needs no neighbour outside of it.
    OpenCV weighs two neighbours in units of 1/2048, rounded from a float32 that loses accuracy away from the origin.
    In sizes like 224, where the weights are multiples of 1/14, none lies so close to the middle between two units that
    it would be rounded differently in another tile; in general one may.
    """
    pixels_per_period = image_size // math.gcd(image_size, WINDOW_SIZE)
    if image_size > WINDOW_SIZE or pixels_per_period > 7:
        return 1
    return math.gcd(image_size, MAX_TILES)


def _surface(color: Color) -> pygame.Surface:
    depth, masks = PIXEL_FORMAT
    surface = pygame.Surface((WINDOW_SIZE, WINDOW_SIZE), 0, depth, masks)
    surface.fill(color)
    return surface


def _pixels(surface: pygame.Surface) -> NDArray[Any]:
    """The surface as (512, 512, 3) uint8 without copying; nothing can be blitted to it as long as that exists."""
    return pygame.surfarray.pixels3d(surface).transpose(1, 0, 2)


def _pale(color: Color) -> Color:
    red, green, blue = (min(255, round(1.2 * value)) for value in color)
    return red, green, blue


def _pixel(point: Point) -> Pixel:
    return round(point[0]), round(point[1])


def _draw_bar(surface: pygame.Surface, color: Color, start: Pixel, end: Pixel) -> None:
    """A line with round ends: a line, a parallelogram and two discs over each other."""
    pygame.draw.line(surface, color, start, end, round(2 * BAR_RADIUS))
    # The offset's signs are missing, so that it points across the line only if that is upright, level or falls to the
    # left. Other slanted lines come out thinner, which is part of the look that the released models know.
    across_x, across_y = abs(end[1] - start[1]), abs(end[0] - start[0])
    scale = BAR_RADIUS / math.hypot(across_x, across_y)
    dx, dy = round(across_x * scale), round(across_y * scale)
    one_side = [(start[0] - dx, start[1] - dy), (start[0] + dx, start[1] + dy)]
    other_side = [(end[0] + dx, end[1] + dy), (end[0] - dx, end[1] - dy)]
    pygame.draw.polygon(surface, color, one_side + other_side)
    pygame.draw.circle(surface, color, start, round(BAR_RADIUS))
    pygame.draw.circle(surface, color, end, round(BAR_RADIUS))
