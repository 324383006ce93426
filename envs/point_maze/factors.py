"""How episodes of the mazes may differ."""

from __future__ import annotations

import numpy as np

from envs.factors import CAMERA, DISTRACTORS, START, Array, Factor, Factors, Layout, colour_factor, usual_values
from envs.point_maze.mazes import Maze

BALL_COLOUR_KEY = "ball_colour"
FLOOR_KEY = "floor_colour"
WALL_COLOUR_KEY = "wall_colour"
SIZE_KEY = "ball_size"
SHAPE_KEY = "ball_shape"
DAMPING_KEY = "damping"

GREEN, FLOOR, BROWN = (90, 180, 90), (40, 60, 90), (200, 145, 85)  # about as they are seen
SIZES = (0.6, 1.5)
SHAPES = ("sphere", "box", "capsule", "cylinder")
DAMPINGS = (5.0, 30.0)  # N s / m
NEAR_WALL = (0.1, 0.2)  # m from a wall to the centre of a ball that starts by it
TRIES = 10_000


def _one(value: float) -> Array:
    return np.array([value], np.float32)


def factors_of(maze: Maze) -> dict[str, Factor]:
    """The factors of one of the mazes."""

    def start(rng: np.random.Generator, states: Array, layout: Layout) -> Layout:
        """Put the ball beside a wall, with the velocity that it has."""
        size = np.array([len(maze.rows), len(maze.rows[0])]) - 2.0
        for _ in range(TRIES):
            place = rng.uniform(-0.7, size)
            cell = np.floor(place + 0.7).astype(int)  # of the plan; its border is wall
            free = (cell < (len(maze.rows), len(maze.rows[0]))).all() and maze.rows[cell[0]][cell[1]] != "#"
            if free and NEAR_WALL[0] <= maze.wall_distance(place) <= NEAR_WALL[1]:
                return {START: np.array([*place, *states[0, 2:]])}
        return {START: states[0]}

    return {
        "colour.background": colour_factor(
            FLOOR_KEY,
            "the floor, one instead of dark blue checks",
            FLOOR,
            {BALL_COLOUR_KEY: GREEN, WALL_COLOUR_KEY: BROWN},
            is_exact=False,
        ),
        "colour.wall": colour_factor(
            WALL_COLOUR_KEY, "the walls, usually brown", BROWN, {BALL_COLOUR_KEY: GREEN, FLOOR_KEY: FLOOR}, False
        ),
        "colour.agent": colour_factor(
            BALL_COLOUR_KEY, "the ball, usually green", GREEN, {FLOOR_KEY: FLOOR, WALL_COLOUR_KEY: BROWN}, False
        ),
        "size.agent": Factor(
            f"the ball, drawn and touching walls, is {SIZES[0]:g} to {SIZES[1]:g} times as large; its mass is the same",
            lambda rng, states, layout: {SIZE_KEY: _one(rng.uniform(*SIZES))},
            ("images", "dynamics"),
            {SIZE_KEY: _one(1.0)},
        ),
        "shape": Factor(
            f"the ball is drawn as a {', '.join(SHAPES[1:])}; it touches walls as a ball all the same",
            lambda rng, states, layout: {SHAPE_KEY: rng.integers(1, len(SHAPES), 1)},
            usual={SHAPE_KEY: np.zeros(1, np.int64)},
        ),
        "damping": Factor(
            f"the ball is slowed by {DAMPINGS[0]:g} to {DAMPINGS[1]:g} N s/m instead of 1",
            lambda rng, states, layout: {DAMPING_KEY: _one(rng.uniform(*DAMPINGS))},
            ("dynamics",),
            {DAMPING_KEY: _one(1.0)},
        ),
        **DISTRACTORS,
        "camera": CAMERA,
        "start": Factor(
            f"the ball starts {NEAR_WALL[0]:g} to {NEAR_WALL[1]:g} m from a wall, anywhere in the maze",
            start,
            ("start",),
        ),
    }


def check_layout(env: str, layout: Layout, factors: Factors) -> None:
    """Refuse keys that no factor draws, and values that no ball can have.

    Raises:
        ValueError: Naming the key.
    """
    known = usual_values(factors)
    if unknown := sorted(set(layout) - set(known)):
        raise ValueError(f"env {env}: unknown layout keys {unknown}, known are {sorted(known)}")
    limits = {SIZE_KEY: (0.2, 2.0), DAMPING_KEY: (0.0, 1000.0), SHAPE_KEY: (0, len(SHAPES) - 1)}
    limits |= dict.fromkeys((BALL_COLOUR_KEY, FLOOR_KEY, WALL_COLOUR_KEY), (-1, 255))
    for key, (low, high) in limits.items():
        if key in layout and not ((layout[key] >= low) & (layout[key] <= high)).all():
            raise ValueError(f"env {env}: layout {key} must be in [{low:g}, {high:g}], got {layout[key].tolist()}")
