"""What a layout of PushT says, as physics and pictures take it."""

from __future__ import annotations

from collections.abc import Mapping

from envs.factors import DISTRACTORS_KEY, Array, Layout, distractor_places, usual_values
from envs.pusht.factors import (
    AGENT_COLOUR_KEY,
    AGENT_SIZE_KEY,
    BACKGROUND_KEY,
    BLOCK_COLOUR_KEY,
    BLOCK_SIZE_KEY,
    FACTORS,
    FRICTION_KEY,
    GLIDE_KEY,
    LANDMARK_KEY,
)
from envs.pusht.physics import WINDOW_SIZE
from envs.pusht.render import Color, Disc, Look
from envs.pusht.shapes import BLOCKS, SHAPE_KEY, SHAPES, Block, shape_index

USUAL = usual_values(FACTORS)
LIMITS = {AGENT_SIZE_KEY: (5.0, 60.0), BLOCK_SIZE_KEY: (0.2, 2.0), FRICTION_KEY: (0.0, 10.0), GLIDE_KEY: (0.0, 10.0)}
"""Lowest and highest values."""
COLOURS = {"background": BACKGROUND_KEY, "landmark": LANDMARK_KEY, "block": BLOCK_COLOUR_KEY, "agent": AGENT_COLOUR_KEY}


def varied(layout: Layout) -> tuple[Block, Look, dict[str, float]]:
    """The block, the look, and the arguments of ``World`` that differ.

    Raises:
        ValueError: If a key is unknown, or a value is none.
    """
    block = BLOCKS[SHAPES[shape_index(layout)]]
    if not layout.keys() - {SHAPE_KEY}:
        return block, Look(), {}
    if unknown := sorted(layout.keys() - USUAL.keys()):
        raise ValueError(f"env pusht: unknown layout keys {unknown}, known are {sorted(USUAL)}")
    size, radius, friction, glide = (
        _number(layout, key) for key in (BLOCK_SIZE_KEY, AGENT_SIZE_KEY, FRICTION_KEY, GLIDE_KEY)
    )
    colours = {part: _colour(layout[key]) for part, key in COLOURS.items() if key in layout}
    return (
        block.scaled(size),
        Look(**colours, agent_radius=radius),
        {"agent_radius": radius, "friction": friction, "glide": glide},
    )


def discs(layout: Mapping[str, Array], step: int) -> list[Disc]:
    """What lies about after ``step`` raw steps."""
    found = layout.get(DISTRACTORS_KEY, USUAL[DISTRACTORS_KEY])
    places = (distractor_places(found, step) * WINDOW_SIZE).tolist()
    return [
        Disc((x, y), WINDOW_SIZE * float(each[4]), _colour(each[5:]))
        for (x, y), each in zip(places, found, strict=True)
        if each[4] > 0
    ]


def _number(layout: Layout, key: str) -> float:
    value, (low, high) = layout.get(key, USUAL[key]).item(), LIMITS[key]
    if not low <= value <= high:
        raise ValueError(f"env pusht: layout {key} must be in [{low:g}, {high:g}], got {value:g}")
    return float(value)


def _colour(values: Array) -> Color:
    if not ((values >= 0) & (values <= 255)).all():
        raise ValueError(f"env pusht: colours must be in [0, 255], got {values.tolist()}")
    red, green, blue = (int(value) for value in values)
    return red, green, blue
