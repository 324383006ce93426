"""How episodes of the Wall may differ."""

from __future__ import annotations

import math

import numpy as np

from envs.factors import CAMERA, DISTRACTORS, START, Array, Factor, Layout, colour_factor
from envs.wall.dynamics import BORDER_HIGH, BORDER_LOW, DOOR_HALF_HEIGHT, WALL_HALF_WIDTH
from envs.wall.render import DOT_SIGMA

DOOR_KEY = "fix_door_location"
WALL_KEY = "fix_wall_location"
DOOR_SIZE_KEY = "door_half_height"
WALL_SIZE_KEY = "wall_half_width"
DOT_SIZE_KEY = "dot_sigma"
DOT_COLOUR_KEY = "dot_colour"
BACKGROUND_KEY = "background_colour"
WALL_COLOUR_KEY = "wall_colour"

USUAL_DOOR, USUAL_WALL = 30.0, 32.0
DOORS = (12, 52)  # y of the centre: the widest door still ends at the border
WALLS = (16, 48)  # x of the centre: both rooms stay wide enough
DOOR_SIZES = (2, 3, 6, 8)
WALL_SIZES = (1, 2, 4, 5)
DOT_SIGMAS = (1.0, 3.0)
START_MARGIN = 3.4  # distance of sampled states from border and wall, pixels
WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)
CLOSEST_START = 0.5  # of a start that varies, pixels


def _one(value: float) -> Array:
    return np.array([value], np.float32)


def _other(rng: np.random.Generator, low: int, high: int, usual: float) -> Array:
    """Draw a whole number of a range, but for the usual one where there are others."""
    values: list[float] = [value for value in range(low, high + 1) if value != usual] or [usual]
    return _one(rng.choice(values))


def _wall(rng: np.random.Generator, states: Array, layout: Layout) -> Layout:
    """Move the wall to where the states stay in their rooms, as far from it as the usual wall must be."""
    room = WALL_HALF_WIDTH + START_MARGIN
    left = [x for x in states[:, 0].tolist() if x < USUAL_WALL]
    right = [x for x in states[:, 0].tolist() if x >= USUAL_WALL]
    low = math.ceil(max([x + room for x in left], default=0.0))
    high = math.floor(min([x - room for x in right], default=BORDER_HIGH))
    low, high = max(low, WALLS[0]), min(high, WALLS[1])
    return {WALL_KEY: _other(rng, low, high, USUAL_WALL)}


def _start(rng: np.random.Generator, states: Array, layout: Layout) -> Layout:
    """Draw a place in the start's own room, along one of its four sides and closer to it than others start."""
    wall, reach = float(layout[WALL_KEY][0]), float(layout.get(WALL_SIZE_KEY, _one(WALL_HALF_WIDTH))[0])
    is_left = states[0, 0] < wall
    low = np.array([BORDER_LOW if is_left else wall + reach, BORDER_LOW])
    high = np.array([wall - reach if is_left else BORDER_HIGH, BORDER_HIGH])
    place = rng.uniform(low + CLOSEST_START, high - CLOSEST_START)
    axis, near = rng.integers(2), rng.uniform(CLOSEST_START, START_MARGIN)
    place[axis] = low[axis] + near if rng.integers(2) else high[axis] - near
    return {START: place}


FACTORS = {
    "colour.background": colour_factor(
        BACKGROUND_KEY, "the rooms, usually white", WHITE, {WALL_COLOUR_KEY: BLACK, DOT_COLOUR_KEY: RED}
    ),
    "colour.wall": colour_factor(
        WALL_COLOUR_KEY, "wall and border, usually black", BLACK, {BACKGROUND_KEY: WHITE, DOT_COLOUR_KEY: RED}
    ),
    "colour.agent": colour_factor(
        DOT_COLOUR_KEY, "the dot, usually red", RED, {BACKGROUND_KEY: WHITE, WALL_COLOUR_KEY: BLACK}
    ),
    "size.agent": Factor(
        f"the drawn dot has a sigma of {DOT_SIGMAS[0]:g} to {DOT_SIGMAS[1]:g} px instead of {DOT_SIGMA}; it moves as a "
        "point either way",
        lambda rng, states, layout: {DOT_SIZE_KEY: _one(rng.uniform(*DOT_SIGMAS))},
        usual={DOT_SIZE_KEY: _one(DOT_SIGMA)},
    ),
    "size.door": Factor(
        f"the door reaches {DOOR_SIZES} px up and down instead of {DOOR_HALF_HEIGHT:g}",
        lambda rng, states, layout: {DOOR_SIZE_KEY: _one(rng.choice(DOOR_SIZES))},
        ("images", "dynamics"),
        {DOOR_SIZE_KEY: _one(DOOR_HALF_HEIGHT)},
    ),
    "size.wall": Factor(
        f"the wall reaches {WALL_SIZES} px left and right instead of {WALL_HALF_WIDTH:g}",
        lambda rng, states, layout: {WALL_SIZE_KEY: _one(rng.choice(WALL_SIZES))},
        ("images", "dynamics"),
        {WALL_SIZE_KEY: _one(WALL_HALF_WIDTH)},
    ),
    "door": Factor(
        f"y of the door's centre is {DOORS[0]} to {DOORS[1]} instead of {USUAL_DOOR:g}",
        lambda rng, states, layout: {DOOR_KEY: _other(rng, *DOORS, USUAL_DOOR)},
        ("images", "dynamics"),
        {DOOR_KEY: _one(USUAL_DOOR)},
    ),
    "wall": Factor(
        f"x of the wall's centre is {WALLS[0]} to {WALLS[1]} instead of {USUAL_WALL:g}, as far as start and goal "
        "stay in their rooms",
        _wall,
        ("images", "dynamics"),
        {WALL_KEY: _one(USUAL_WALL)},
    ),
    **DISTRACTORS,
    "camera": CAMERA,
    "start": Factor(
        f"the start lies along a side of its room, {CLOSEST_START:g} to {START_MARGIN:g} px from it, where none "
        "usually is",
        _start,
        ("start",),
    ),
}
