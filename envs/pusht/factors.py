"""How episodes of PushT may differ."""

from __future__ import annotations

import math

import numpy as np

from envs.factors import CAMERA, DISTRACTORS, START, Array, Factor, Layout, colour_factor
from envs.pusht.physics import AGENT_RADIUS, WINDOW_SIZE
from envs.pusht.shapes import BLOCKS, SHAPE_KEY, SHAPES

AGENT_SIZE_KEY = "agent_radius"
BLOCK_SIZE_KEY = "block_scale"
FRICTION_KEY = "friction"
GLIDE_KEY = "block_glide"
BACKGROUND_KEY = "background_colour"
LANDMARK_KEY = "landmark_colour"
BLOCK_COLOUR_KEY = "block_colour"
AGENT_COLOUR_KEY = "agent_colour"

WHITE, GREEN, GREY, BLUE = (255, 255, 255), (144, 238, 144), (119, 136, 153), (65, 105, 225)
AGENT_SIZES = (10.0, 20.0)
BLOCK_SIZES = (0.75, 1.25)
FRICTIONS = (0.3, 1.0)
GLIDES = (0.02, 0.1)  # s
AWAY = (40.0, 120.0)  # of a start that varies, from the usual one, pixels
EDGE = 20.0  # nothing starts nearer to the window's edge, pixels
TRIES = 100


def _one(value: float) -> Array:
    return np.array([value], np.float32)


def _start(rng: np.random.Generator, states: Array, layout: Layout) -> Layout:
    """Move the agent to another place, not into the block."""
    start = states[0].copy()
    shape = SHAPES[int(layout.get(SHAPE_KEY, np.zeros(1)).item())]
    block = BLOCKS[shape].scaled(float(layout.get(BLOCK_SIZE_KEY, _one(1.0)).item()))
    gap = float(layout.get(AGENT_SIZE_KEY, _one(AGENT_RADIUS)).item()) + 1
    for _ in range(TRIES):
        away, angle = rng.uniform(*AWAY), rng.uniform(0, 2 * math.pi)
        place = states[0, :2] + away * np.array([math.cos(angle), math.sin(angle)])
        inside = (place >= EDGE).all() and (place <= WINDOW_SIZE - EDGE).all()
        if inside and block.distance(*states[0, 2:5].tolist(), *place.tolist()) >= gap:
            start[:2] = place
            break
    return {START: start}


FACTORS = {
    "colour.background": colour_factor(
        BACKGROUND_KEY,
        "the table, usually white",
        WHITE,
        {LANDMARK_KEY: GREEN, BLOCK_COLOUR_KEY: GREY, AGENT_COLOUR_KEY: BLUE},
    ),
    "colour.block": colour_factor(
        BLOCK_COLOUR_KEY, "the block, usually grey", GREY, {BACKGROUND_KEY: WHITE, AGENT_COLOUR_KEY: BLUE}
    ),
    "colour.agent": colour_factor(
        AGENT_COLOUR_KEY, "the agent, usually blue", BLUE, {BACKGROUND_KEY: WHITE, BLOCK_COLOUR_KEY: GREY}
    ),
    "colour.landmark": colour_factor(
        LANDMARK_KEY, "the landmark, usually light green", GREEN, {BACKGROUND_KEY: WHITE, BLOCK_COLOUR_KEY: GREY}
    ),
    "size.agent": Factor(
        f"the agent's radius is {AGENT_SIZES[0]:g} to {AGENT_SIZES[1]:g} px instead of {AGENT_RADIUS:g}",
        lambda rng, states, layout: {AGENT_SIZE_KEY: _one(rng.uniform(*AGENT_SIZES))},
        ("images", "dynamics"),
        {AGENT_SIZE_KEY: _one(AGENT_RADIUS)},
    ),
    "size.block": Factor(
        f"the block, and the landmark, are {BLOCK_SIZES[0]:g} to {BLOCK_SIZES[1]:g} times as large; its mass stays 1",
        lambda rng, states, layout: {BLOCK_SIZE_KEY: _one(rng.uniform(*BLOCK_SIZES))},
        ("images", "dynamics"),
        {BLOCK_SIZE_KEY: _one(1.0)},
    ),
    "shape": Factor(
        f"the block is one of {', '.join(SHAPES[1:])} instead of T",
        lambda rng, states, layout: {SHAPE_KEY: rng.integers(1, len(SHAPES), 1)},
        ("images", "dynamics"),
        {SHAPE_KEY: np.zeros(1, np.int64)},
    ),
    "friction": Factor(
        f"agent and block rub on each other with a coefficient of {FRICTIONS[0]:g} to {FRICTIONS[1]:g} instead of 0",
        lambda rng, states, layout: {FRICTION_KEY: _one(rng.uniform(*FRICTIONS))},
        ("dynamics",),
        {FRICTION_KEY: _one(0.0)},
    ),
    "glide": Factor(
        f"a pushed block glides, slowing to 1/e within {GLIDES[0]:g} to {GLIDES[1]:g} s instead of stopping at once",
        lambda rng, states, layout: {GLIDE_KEY: _one(rng.uniform(*GLIDES))},
        ("dynamics",),
        {GLIDE_KEY: _one(0.0)},
    ),
    **DISTRACTORS,
    "camera": CAMERA,
    "start": Factor(
        f"the agent starts {AWAY[0]:g} to {AWAY[1]:g} px from where it usually would, not in the block, which stays",
        _start,
        ("start",),
    ),
}
