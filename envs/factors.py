"""Factors of variation: how the world of an episode may differ from the one that models are usually trained in."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from utils.nearby import nearest_names

Array = NDArray[Any]
Layout = Mapping[str, Array]
Change = Literal["images", "dynamics", "start"]
START = "start"
"""What a factor draws under this name is a state to start from; every other name is a key of the episode's layout."""
EVERYTHING = "all"

CONTRAST = 120.0  # least distance in red, green and blue of things that must be told apart
SHIFTS = (0.02, 0.06)  # of the camera along each axis, sides of the image
NUM_DISTRACTORS = 3
RADII = (0.03, 0.07)  # of distractors, sides of the image
SPEEDS = (0.002, 0.01)  # of moving ones along each axis, sides of the image a raw step


@dataclass(frozen=True)
class Factor:
    """One way in which episodes may differ.

    Attributes:
        what: What is drawn, in a line that stands behind the factor's name.
        draw: Draws the values of one episode from a generator. It is also given the states (n, S) that must stay
            possible, the start first, and the episode's layout as drawn so far. Returns values like those of ``usual``,
            or a state (S,) under ``START``.
        changes: What differs: images, dynamics, or where the episode starts.
        usual: Layout key -> value of an episode that does not differ.
    """

    what: str
    draw: Callable[[np.random.Generator, Array, Layout], Layout]
    changes: Sequence[Change] = ("images",)
    usual: Layout = field(default_factory=dict)


Factors = Mapping[str, Factor]


def chosen_factors(factors: Factors, names: str | Iterable[str], env: str) -> dict[str, Factor]:
    """Find factors by name, in the order in which they are declared.

    Args:
        factors: All of the environment.
        names: Of factors, of groups (``colour`` is all that begin with ``colour.``), or ``all``; a text may hold
            several, with commas between them.
        env: Name of the environment, for errors.

    Raises:
        ValueError: If there is no such factor.
    """
    found = set()
    for name in factor_names(names):
        own = {each for each in factors if name in (each, EVERYTHING) or each.startswith(f"{name}.")}
        if not own:
            groups = dict.fromkeys(each.split(".")[0] for each in factors)
            known = f"there are {', '.join([*factors, EVERYTHING])}" if factors else "it declares none"
            raise ValueError(f"vary={name}: env={env} has no such factor{nearest_names(name, [*groups, *factors])} "
                             f"In env={env} {known}")  # fmt: skip
        found |= own
    return {name: factor for name, factor in factors.items() if name in found}


def factor_names(names: str | Iterable[str]) -> list[str]:
    """Take apart what ``vary`` may be: a list of names, or one text."""
    return [name for name in map(str.strip, names.split(",")) if name] if isinstance(names, str) else list(names)


def usual_values(factors: Factors) -> dict[str, Array]:
    """Layout key -> value of an episode that does not differ, of all factors."""
    return {key: value for factor in factors.values() for key, value in factor.usual.items()}


def draw_factors(factors: Factors, seed: int, states: Array, layout: Layout, attempt: int = 0) -> dict[str, Array]:
    """Draw what differs in one episode; each factor has a stream of random numbers of its own.

    Args:
        factors: Those that vary.
        seed: Of the episode.
        states: (n, S) states that must stay possible, the start first.
        layout: Of the episode.
        attempt: Number of the draw; another one draws anew.

    Returns:
        Layout keys with their values, and ``START`` with a state (S,) where the start varies.
    """
    drawn: dict[str, Array] = {}
    for name, factor in factors.items():
        key = (zlib.crc32(name.encode()), attempt)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
        values = factor.draw(rng, states, {**layout, **drawn})
        drawn |= {
            key: np.asarray(value, getattr(factor.usual.get(key), "dtype", None)) for key, value in values.items()
        }
    return drawn


def colour(rng: np.random.Generator, *unlike: Array) -> Array:
    """Draw red, green and blue, 0..255, not close to the colours it must be told from."""
    while True:
        drawn = rng.integers(0, 256, 3)
        if all(np.linalg.norm(drawn - each) >= CONTRAST for each in unlike):
            return drawn.astype(np.float32)


AS_IT_IS = np.full(3, -1, np.float32)
"""A colour that stands for the usual one, where that is no single colour."""


def colour_factor(
    key: str, what: str, usual: Sequence[int], unlike: Mapping[str, Sequence[int]], is_exact: bool = True
) -> Factor:
    """Make the factor of one colour, layout key ``key``.

    Args:
        key: Of the layout.
        what: Whose colour it is.
        usual: Red, green and blue, 0..255, of an episode that does not differ; what is drawn is told from it, too.
        unlike: Layout key -> usual colour of what it must be told from.
        is_exact: Whether things usually have that very colour; else ``AS_IT_IS`` stands for how they look.
    """
    value = np.array(usual, np.float32)

    def draw(rng: np.random.Generator, states: Array, layout: Layout) -> Layout:
        return {key: colour(rng, value, *(layout.get(other, np.array(its)) for other, its in unlike.items()))}

    about = f"colour of {what}; well told from that and from the others"
    return Factor(about, draw, usual={key: value if is_exact else AS_IT_IS})


CAMERA_KEY = "camera_shift"


def _camera(rng: np.random.Generator, states: Array, layout: Layout) -> Layout:
    return {CAMERA_KEY: rng.uniform(*SHIFTS, 2) * rng.choice((-1, 1), 2)}


CAMERA = Factor(
    "the image is shifted by 2 to 6 % of its side along both axes; what comes into view repeats the edge",
    _camera,
    usual={CAMERA_KEY: np.zeros(2, np.float32)},
)

DISTRACTORS_KEY = "distractors"


def _distractors(rng: np.random.Generator, is_moving: bool) -> Layout:
    places = rng.uniform(0.1, 0.9, (NUM_DISTRACTORS, 2))
    radii = rng.uniform(*RADII, (NUM_DISTRACTORS, 1))
    colours = rng.integers(0, 256, (NUM_DISTRACTORS, 3))
    speeds = rng.uniform(*SPEEDS, (NUM_DISTRACTORS, 2)) * rng.choice((-1, 1), (NUM_DISTRACTORS, 2)) * is_moving
    return {DISTRACTORS_KEY: np.concatenate([places, speeds, radii, colours], 1)}


_NO_DISTRACTORS = {DISTRACTORS_KEY: np.zeros((NUM_DISTRACTORS, 8), np.float32)}
DISTRACTORS = {
    "distractors.still": Factor(
        "three discs of any colour lie about; nothing touches them, and the agent is drawn over them",
        lambda rng, states, layout: _distractors(rng, False),
        usual=_NO_DISTRACTORS,
    ),
    "distractors.moving": Factor(
        "the same, and they move, turning round at the image's edges",
        lambda rng, states, layout: _distractors(rng, True),
        usual=_NO_DISTRACTORS,
    ),
}


def distractor_places(distractors: Array, step: int) -> Array:
    """Where distractors (..., 8) are after ``step`` raw steps: (..., 2), x and y, in sides of the image.

    A distractor is x, y, its way along x and y in a raw step, its radius (0: there is none), and red, green and blue.
    """
    along = (distractors[..., :2] + step * distractors[..., 2:4]) % 2
    return np.minimum(along, 2 - along)


def shifted(image: Array, shift: Array) -> Array:
    """Shift an image (H, W, 3) by ``shift`` (2,), sides of the image along x and y; what is new repeats the edge."""
    height, width = image.shape[:2]
    columns, rows = (
        np.clip(np.arange(side) - round(float(part) * side), 0, side - 1)
        for side, part in zip((width, height), shift, strict=True)
    )
    return np.ascontiguousarray(image[rows[:, None], columns])
