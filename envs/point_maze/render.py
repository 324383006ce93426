"""Images of the mazes: only what may differ from the empty maze is drawn, with the same bits as the whole."""

from __future__ import annotations

import copy
import functools
import math

import numpy as np
from numpy.typing import NDArray

from envs.opengl import graphics, mujoco
from envs.point_maze.mazes import Maze
from envs.point_maze.model import maze_model

Image = NDArray[np.uint8]

FIELD_OF_VIEW = math.radians(45)
BALL_REACH = 0.3  # the drawn ball, of radius 0.2, colours no pixel further from its centre than this, m
DEEPEST_CENTER = 0.05  # of a ball pressed into an outer wall, behind its face, m
OUT_OF_VIEW = 100.0  # m
SMALLEST_IN_PARTS = 7.9  # pixels a metre; with fewer a pixel of the ball may also show a wall 0.5 m away from it
NOT_IN_VIEW = ("mjRND_SKYBOX", "mjRND_HAZE", "mjRND_REFLECTION", "mjRND_SHADOW")
HIDDEN_GROUP = 3  # of geoms, not drawn by default


def in_image(maze: Maze, place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where in an image places (..., 2) of the world are, m: from its upper left corner, in 0..1."""
    return 0.5 + (place - maze.camera_center) / (2 * math.tan(FIELD_OF_VIEW / 2) * maze.extent)


def from_image(maze: Maze, place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where in the world places (..., 2) of an image are, m: what ``in_image`` undoes."""
    return (place - 0.5) * (2 * math.tan(FIELD_OF_VIEW / 2) * maze.extent) + maze.camera_center


@functools.cache
def maze_renderer(maze: Maze, image_size: int) -> MazeRenderer:
    """The renderer for a maze and a size of images, shared by all episodes of the process."""
    return MazeRenderer(maze, image_size)


class MazeRenderer:
    """Draws the maze from above, x to the right and y downwards.

    Drawing time grows with the area of the buffer, so a ball inside the maze is drawn into one that ends right beside
    the maze. It is the image's own corner, every pixel at the same coordinates and hence the same to the last bit; a
    buffer around the ball would be smaller still, but rounds differently. Walls far from the ball are left out.
    """

    def __init__(self, maze: Maze, image_size: int) -> None:
        """Start OpenGL, if need be, and draw the empty maze.

        Args:
            maze: What is drawn.
            image_size: Side of the images, pixels.

        Raises:
            OpenGLError: If there is no OpenGL, or the images are too large for it.
        """
        self._maze, self._size = maze, image_size
        self._pixels_per_meter = image_size / (2 * math.tan(FIELD_OF_VIEW / 2) * maze.extent)
        self._patch = min(image_size, math.ceil(2 * BALL_REACH * self._pixels_per_meter) + 1)
        self._viewport = mujoco.MjrRect(0, 0, image_size, image_size)
        self._whole = graphics().buffers(maze_model(maze), image_size)
        self._in_parts = self._pixels_per_meter >= SMALLEST_IN_PARTS
        if self._in_parts:
            sides = np.array([len(maze.rows), len(maze.rows[0])]) - 0.5  # faces of the outer walls, m
            farthest = self._pixel(sides + DEEPEST_CENTER + BALL_REACH)
            self._corner_size = min(image_size, math.ceil(farthest.max()) + 1)
            self._corner = graphics().buffers(maze_model(maze), self._corner_size)
        self._empty = self._draw_whole(OUT_OF_VIEW, OUT_OF_VIEW)

    def draw(self, x: float, y: float) -> Image:
        """The image (image_size, image_size, 3) with the ball's centre at x, y in world coordinates, m."""
        if not self._in_parts:
            return self._draw_whole(x, y)
        left, top = self._patch_start(x, y)
        if max(left, top) + self._patch > self._corner_size:
            return self._draw_whole(x, y)
        image = self._empty.copy()
        scene = maze_scene(self._maze, (math.floor(x), math.floor(y)))
        rect = mujoco.MjrRect(left, top, self._patch, self._patch)
        image[top : top + self._patch, left : left + self._patch] = self._draw(scene, x, y, self._corner, rect)
        return image

    def _draw_whole(self, x: float, y: float) -> Image:
        return self.draw_scene(maze_scene(self._maze, None), x, y)

    def draw_scene(self, scene: MazeScene, x: float, y: float) -> Image:
        """The whole image of a scene of this maze, see ``draw``."""
        return self._draw(scene, x, y, self._whole, self._viewport)

    def _draw(self, scene: MazeScene, x: float, y: float, buffers: mujoco.MjrContext, rect: mujoco.MjrRect) -> Image:
        """Draw as much of the image as fits into ``buffers`` and read ``rect`` of it.

        OpenGL counts rows from below, and the camera sees y growing upwards: row 0 is the smallest y.
        """
        scene.ball.pos[:2] = x, y
        graphics().make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, buffers)
        mujoco.mjr_render(self._viewport, scene.scene, buffers)
        pixels = np.empty((rect.height, rect.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, rect, buffers)
        return pixels

    def _pixel(self, place: NDArray[np.float64]) -> NDArray[np.float64]:
        """A place x, y in the image, in pixels from its edges."""
        return self._size / 2 + self._pixels_per_meter * (place - self._maze.camera_center)

    def _patch_start(self, x: float, y: float) -> tuple[int, int]:
        """First column and row of what the ball may colour; inside the image, wherever the ball is."""
        starts = np.floor(self._pixel(np.array([x, y])) - BALL_REACH * self._pixels_per_meter)
        left, top = np.clip(starts, 0, self._size - self._patch).astype(int).tolist()
        return left, top


class MazeScene:
    """The ball, the ground and some walls, seen from above.

    Attributes:
        scene: What MuJoCo draws.
        ball: The one thing in it that moves.
    """

    def __init__(self, maze: Maze, corner: tuple[int, int] | None, spare: int = 0) -> None:
        """Set the scene up.

        Args:
            maze: What is drawn.
            corner: None for all walls, or those with a centre at this x, y or 1 m further along one or both. They
                are all that is seen near a ball in between: other walls begin 0.5 m away from it, and it covers 0.2.
            spare: How many things may be added.
        """
        model = copy.copy(maze_model(maze))
        if corner is not None:
            is_wall = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX
            from_corner = model.geom_pos[:, :2] - corner
            model.geom_group[is_wall & ((from_corner < 0) | (from_corner > 1)).any(axis=1)] = HIDDEN_GROUP
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        camera = mujoco.MjvCamera()
        camera.lookat[:] = *maze.camera_center, 0
        camera.distance, camera.azimuth, camera.elevation = maze.extent, 90, -90
        scene = mujoco.MjvScene(model, model.ngeom + model.nsite + spare)
        mujoco.mjv_updateScene(model, data, mujoco.MjvOption(), None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
        for flag in NOT_IN_VIEW:
            scene.flags[getattr(mujoco.mjtRndFlag, flag)] = False
        self.scene = scene
        [self.ball] = [geom for geom in scene.geoms[: scene.ngeom] if geom.objtype == mujoco.mjtObj.mjOBJ_SITE]


@functools.lru_cache(maxsize=128)
def maze_scene(maze: Maze, corner: tuple[int, int] | None) -> MazeScene:
    """A scene, made when first needed; ``corner`` is the ball's place rounded down, or None."""
    return MazeScene(maze, corner)
