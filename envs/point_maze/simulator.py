"""PointMaze: a ball is pushed through a maze; MuJoCo simulates and draws it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from envs.episode_seeds import episode_generator
from envs.opengl import mujoco
from envs.point_maze.factors import DAMPING_KEY, SIZE_KEY, check_layout, factors_of
from envs.point_maze.mazes import LARGE_MAZE, MEDIUM_MAZE, ORIGIN, U_MAZE, Maze
from envs.point_maze.model import FRAME_SKIP, maze_model, varied_model
from envs.point_maze.render import Image, in_image, maze_renderer
from envs.point_maze.varied_render import LOOK, draw_varied
from envs.simulator import EpisodeLayout, Simulator

SUCCESS_RADIUS = 0.5  # m
TOP_SPEED = 5.0  # m/s along each axis, enforced at the start of each step only
POSITION_LIMITS = (0.5, 3.1)  # of states sampled in the U, m, along x and y
BESIDE_WALL = (1.1, 2.5)  # they are not between these x values ...
BEYOND_WALL = 2.5  # ... unless their y is at least this: that is where the wall in the middle stands
CELL_REACH = 0.25  # of states sampled in the other mazes, m from joint coordinates i, j of a free cell
NEAREST_WALL = (
    0.03  # m from the ball's centre; its radius is 0.1, but walls are soft: pressed, it gets as near as 0.041
)
SPEED_LIMIT = 5.2262554  # of sampled states, m/s along each axis
ALL_STATE = mujoco.mjtState.mjSTATE_INTEGRATION  # all that the next step depends on
NOT_COPIED = ("_model", "_data", "_position", "_velocity", "_force", "_num_warnings", "_ball_place")
"""One for all episodes of a process, and views of its memory: copied, they would be arrays that nothing moves."""


class PointMazeSimulator(Simulator):
    """One episode: push the ball to a place in the U-shaped maze.

    States are (x, y, vx, vy) in m and m/s, float64; the maze reaches from 0.4 to 3.2 along both axes, and the world of
    the model lies 1.2 m further. An action is a force along x and y in units of 100 N, clipped to [-1, 1]; a step takes
    0.05 s. Layouts have nothing but the keys of ``factors``. Without randomness: the seeds only draw start and goal.

    Source: DINO-WM's PointMaze environment, i.e. d4rl's U-shaped maze with 5 simulation steps per action. States and
    images are the original's. Deviation: states and actions that are no numbers, and a simulation that becomes
    unstable, are errors; the original went on, from position 0.
    """

    maze: ClassVar[Maze] = U_MAZE
    name = maze.name
    factors = factors_of(maze)
    state_dim = 4
    env_action_dim = 2
    proprio_indices = (0, 1, 2, 3)

    def __init__(self, image_size: int = 224) -> None:
        """Set up a simulator without an episode.

        Raises:
            RuntimeError: If the installed MuJoCo is too old.
        """
        super().__init__(image_size)
        self._model = maze_model(self.maze)
        self._is_playing, self._layout, self._steps = False, dict[str, Any](), 0
        self._attach(mujoco.MjData(self._model))

    def _attach(self, data: mujoco.MjData) -> None:
        """Work on ``data``; all but itself are views of its memory."""
        self._data = data
        self._position, self._velocity, self._force = data.qpos, data.qvel, data.ctrl
        self._num_warnings = data.warning.number
        self._ball_place = data.site("ball").xpos

    def _model_of(self, layout: EpisodeLayout) -> mujoco.MjModel:
        """The model of all episodes, or one of its own for a ball that differs."""
        size, damping = (float(layout[key].item()) if key in layout else 1.0 for key in (SIZE_KEY, DAMPING_KEY))
        return maze_model(self.maze) if size == damping == 1 else varied_model(self.maze, size, damping)

    def __getstate__(self) -> dict[str, Any]:
        # the ball is drawn where it was when places were last computed, which no state of MuJoCo's holds
        moment = np.empty(mujoco.mj_stateSize(self._model, ALL_STATE))
        mujoco.mj_getState(self._model, self._data, moment, ALL_STATE)
        return {
            **{name: value for name, value in self.__dict__.items() if name not in NOT_COPIED},
            "moment": (moment, self._ball_place.copy()),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        moment, ball_place = state.pop("moment")
        self.__dict__ |= state
        self._model = self._model_of(self._layout)
        self._attach(mujoco.MjData(self._model))
        mujoco.mj_setState(self._model, self._data, moment, ALL_STATE)
        self._ball_place[:] = ball_place

    @classmethod
    def sample_start_goal(cls, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw a start and a goal anywhere in the maze, each with a velocity of its own: two (4,) float64 arrays."""
        generator = episode_generator(seed)
        return _sample_state(generator), _sample_state(generator)

    @classmethod
    def compare(cls, states: NDArray[Any], goals: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Compare states (B, 4) with goals (B, 4): success (B,) is a distance below 0.5 m, whatever the velocities.

        The second value (B,) is the distance over all four numbers, m and m/s mixed, as the original reports it.
        """
        difference = np.asarray(states, np.float64) - np.asarray(goals, np.float64)
        return np.linalg.norm(difference[:, :2], axis=1) < SUCCESS_RADIUS, np.linalg.norm(difference, axis=1)

    @classmethod
    def places(cls, states: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The ball's centre."""
        return {"ball": in_image(cls.maze, states[..., :2] + ORIGIN)}

    @classmethod
    def misplaced(cls, state: NDArray[Any], layout: EpisodeLayout) -> str:
        """Name a place in a wall or outside the maze."""
        distance = cls.maze.wall_distance(state[:2])
        if NEAREST_WALL <= distance < math.inf:
            return ""
        where = "lies outside the maze" if distance == math.inf else "lies inside a wall"
        rows = " ".join(cls.maze.rows)
        return (
            f"x={state[0]:g}, y={state[1]:g} {where} (the middle of cell i, j is x={1 - ORIGIN:g} + i, "
            f"y={1 - ORIGIN:g} + j; rows i, # a wall: {rows})"
        )

    def reset(self, state: NDArray[Any], layout: EpisodeLayout) -> NDArray[np.float64]:
        """Start an episode in ``state`` (4,), which is returned as float64.

        Raises:
            ValueError: If the state is not four finite numbers, each smaller than MuJoCo's limit of 1e10, or the layout
                has what no factor draws.
        """
        check_layout(self.name, layout, self.factors)
        start = np.array(state, np.float64)
        if start.shape != (self.state_dim,) or not (np.abs(start) < mujoco.mjMAXVAL).all():
            raise ValueError(
                f"env {self.name}: a state must be 4 finite numbers below 1e10 in size (x, y, vx, vy), got {state}"
            )
        if layout or self._layout:
            self._model = self._model_of(layout)
            self._attach(mujoco.MjData(self._model))
        self._layout, self._steps = dict(layout), 0
        mujoco.mj_resetData(self._model, self._data)
        self._position[:], self._velocity[:] = start[:2], start[2:]
        mujoco.mj_forward(self._model, self._data)
        self._is_playing = True
        return start

    def step(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """Execute raw actions (K, 2) in units of 100 N; returns the visited states (K, 4).

        Raises:
            ValueError: If the actions are not (K, 2) or not finite.
            RuntimeError: If there is no episode, or MuJoCo reports that the simulation became unstable.
        """
        self._require_episode()
        if actions.ndim != 2 or actions.shape[1] != self.env_action_dim:
            raise ValueError(f"env {self.name}: actions must be (K, {self.env_action_dim}), got {actions.shape}")
        if not np.isfinite(actions).all():
            raise ValueError(f"env {self.name}: actions must be finite, got NaN or infinity (did the planner diverge?)")
        visited = np.empty((len(actions), self.state_dim))
        # the original computed all forces here, too, with mj_forward; mj_step begins with the same
        for force, row in zip(np.clip(actions, -1, 1), visited, strict=True):
            np.clip(self._velocity, -TOP_SPEED, TOP_SPEED, out=self._velocity)
            self._force[:] = force
            mujoco.mj_step(self._model, self._data, FRAME_SKIP)
            row[:2], row[2:] = self._position, self._velocity
        self._steps += len(actions)
        if self._num_warnings.any():  # MuJoCo has then started anew from position 0
            self._is_playing = False
            warnings = [mujoco.mjtWarning(kind).name for kind in np.flatnonzero(self._num_warnings)]
            raise RuntimeError(f"env {self.name}: the simulation became unstable ({', '.join(warnings)})")
        return visited

    def render(self) -> Image:
        """The image (image_size, image_size, 3) uint8, x to the right and y downwards.

        After a step it shows the ball where it was one simulation step (0.01 s, up to 0.06 m) before the state's time,
        because that is when MuJoCo last computed places. The original's images do the same, to the last bit.

        Raises:
            RuntimeError: If there is no episode, or nothing to draw with (``envs.opengl.OpenGLError``).
        """
        self._require_episode()
        x, y, _ = self._ball_place.tolist()
        if not self._layout.keys().isdisjoint(LOOK):
            return draw_varied(self.maze, self.image_size, self._ball_place[:2], self._layout, self._steps)
        return maze_renderer(self.maze, self.image_size).draw(x, y)

    def _require_episode(self) -> None:
        if not self._is_playing:
            raise RuntimeError(f"env {self.name}: call reset before step and render")


def _sample_state(generator: np.random.RandomState) -> NDArray[np.float64]:
    while True:
        x, y = generator.uniform(*POSITION_LIMITS, size=2)
        if not BESIDE_WALL[0] < x < BESIDE_WALL[1] or y >= BEYOND_WALL:
            return np.array([x, y, *generator.uniform(-SPEED_LIMIT, SPEED_LIMIT, size=2)])


class PointMazeMediumSimulator(PointMazeSimulator):
    """One episode in a maze of 26 free cells, the second published layout.

    All but maze, start and goal is as in the U. Joint coordinates of the maze reach from 0.4 to 6.2 along both axes.

    Source: d4rl's medium maze; start and goal as the release of arXiv 2603.12231 draws them.
    """

    maze = MEDIUM_MAZE
    name = maze.name
    factors = factors_of(maze)

    @classmethod
    def sample_start_goal(cls, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw two free cells, mostly different ones, then a place and velocity in each: two (4,) float64 arrays."""
        generator = episode_generator(seed)
        cells = [*cls.maze.cells("O"), *cls.maze.cells("G")]
        start, goal = generator.randint(len(cells)), generator.randint(len(cells))
        if goal == start:
            goal = generator.randint(len(cells))
        return _sample_in_cell(generator, cells[start]), _sample_in_cell(generator, cells[goal])


class PointMazeLargeSimulator(PointMazeMediumSimulator):
    """One episode in d4rl's large maze of 46 free cells; x reaches from 0.4 to 7.2 m, y to 10.2 m."""

    maze = LARGE_MAZE
    name = maze.name
    factors = factors_of(maze)


def _sample_in_cell(generator: np.random.RandomState, cell: tuple[int, int]) -> NDArray[np.float64]:
    place = generator.uniform(-CELL_REACH, CELL_REACH, size=2) + cell
    return np.array([*place, *generator.uniform(-SPEED_LIMIT, SPEED_LIMIT, size=2)])
