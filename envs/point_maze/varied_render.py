"""Images of mazes that look otherwise: all is drawn anew, with the usual bits where it looks as usual."""

from __future__ import annotations

import functools

import numpy as np

from envs.factors import CAMERA_KEY, DISTRACTORS_KEY, Array, Layout, distractor_places, shifted
from envs.opengl import mujoco
from envs.point_maze.factors import BALL_COLOUR_KEY, FLOOR_KEY, SHAPE_KEY, SIZE_KEY, WALL_COLOUR_KEY
from envs.point_maze.mazes import Maze
from envs.point_maze.render import Image, MazeScene, from_image, maze_renderer

LOOK = (BALL_COLOUR_KEY, FLOOR_KEY, WALL_COLOUR_KEY, SIZE_KEY, SHAPE_KEY, DISTRACTORS_KEY, CAMERA_KEY)
"""Layout keys that change images."""
GEOMS = ("mjGEOM_SPHERE", "mjGEOM_BOX", "mjGEOM_CAPSULE", "mjGEOM_CYLINDER")
HALF_SIDES = ((1.0, 1.0, 1.0), (0.8, 0.8, 0.8), (0.5, 0.5, 0.6), (1.0, 1.0, 0.3))  # of each, in radii of the drawn ball
ON_FLOOR = -0.09  # height of what lies about, m
THICKNESS = 0.005


class VariedScene(MazeScene):
    """The whole scene, in which everything may be painted and set anew for every image."""

    def __init__(self, maze: Maze) -> None:
        super().__init__(maze, None, spare=32)
        geoms = self.scene.geoms[: self.scene.ngeom]
        self._maze, self._radius = maze, float(self.ball.size[0])
        self._parts = {
            WALL_COLOUR_KEY: [geom for geom in geoms if geom.type == mujoco.mjtGeom.mjGEOM_BOX],
            FLOOR_KEY: [geom for geom in geoms if geom.type == mujoco.mjtGeom.mjGEOM_PLANE],
            BALL_COLOUR_KEY: [self.ball],
        }
        self._usual = {key: [(geom.rgba.copy(), geom.matid) for geom in own] for key, own in self._parts.items()}
        self._num_geoms = self.scene.ngeom

    def set(self, layout: Layout, step: int) -> None:
        """Paint and set everything as a layout says, ``step`` raw steps after the start."""
        for key, geoms in self._parts.items():
            colour = layout.get(key)
            for geom, (rgba, material) in zip(geoms, self._usual[key], strict=True):
                if colour is None or colour[0] < 0:
                    geom.rgba[:], geom.matid = rgba, material
                else:
                    geom.rgba[:3] = colour / 255
                    geom.matid = -1 if key == FLOOR_KEY else material  # a plain floor
        shape = int(layout[SHAPE_KEY].item()) if SHAPE_KEY in layout else 0
        radius = self._radius * (float(layout[SIZE_KEY].item()) if SIZE_KEY in layout else 1)
        self.ball.type = getattr(mujoco.mjtGeom, GEOMS[shape])
        self.ball.size[:] = [radius * side for side in HALF_SIDES[shape]]
        self.scene.ngeom = self._num_geoms
        for disc, place in _discs(layout, step):
            self._add(disc, place)

    def _add(self, disc: Array, place: Array) -> None:
        x, y = from_image(self._maze, place)
        size = np.array([from_image(self._maze, place + disc[4])[0] - x, THICKNESS, 0.0])
        geom = self.scene.geoms[self.scene.ngeom]
        rgba = np.array([*disc[5:] / 255, 1], np.float32)
        kind = mujoco.mjtGeom.mjGEOM_CYLINDER
        mujoco.mjv_initGeom(geom, kind, size, np.array([x, y, ON_FLOOR]), np.eye(3).flatten(), rgba)
        self.scene.ngeom += 1


def _discs(layout: Layout, step: int) -> list[tuple[Array, Array]]:
    if DISTRACTORS_KEY not in layout:
        return []
    found = layout[DISTRACTORS_KEY].astype(np.float64)
    places = distractor_places(found, step)
    return [(disc, place) for disc, place in zip(found, places, strict=True) if disc[4] > 0]


@functools.cache
def varied_scene(maze: Maze) -> VariedScene:
    """The scene of a maze that is painted again for every image, one for the process."""
    return VariedScene(maze)


def draw_varied(maze: Maze, image_size: int, place: Array, layout: Layout, step: int) -> Image:
    """Draw an episode that may look otherwise: (image_size, image_size, 3) uint8.

    Args:
        maze: What is drawn.
        image_size: Side of the image, pixels.
        place: World x, y of the ball's centre, m.
        layout: Of the episode.
        step: Raw steps since its start.
    """
    scene = varied_scene(maze)
    scene.set(layout, step)
    image = maze_renderer(maze, image_size).draw_scene(scene, *place.tolist())
    return shifted(image, layout[CAMERA_KEY]) if CAMERA_KEY in layout else image
