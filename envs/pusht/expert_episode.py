"""One episode of scripted pushes: where it starts, what the script is to do, and how the noise disturbs it."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Interval, Len

from envs.pusht.contacts import contacts
from envs.pusht.script import Pose, PushScript
from envs.pusht.shapes import SHAPES
from utils.ranges import Count, Share

Pixel = Annotated[float, Interval(ge=0, le=512)]
PixelRange = Annotated[Sequence[Pixel], Len(2, 2)]

_LANDMARK = Pose(256 + 256j, math.pi / 4)  # the green one in the images; center is here where the block's origin lies
_AGENT_RANGE = (30.0, 482.0)  # coordinates of its start, pixels
_BLOCK_RANGE = (90.0, 422.0)  # of centres of gravity: nearer to the window's edge a block would not fit
_LENGTHS = (1.5, 2.4)  # parameters of the beta distribution of lengths: mean 125 within 50..246, as released


@dataclass(frozen=True)
class PushOptions:
    """Options by which episodes are drawn.

    Attributes:
        min_steps: Of an episode, or all that there are, if fewer; the mean is a good third of the way from here to the
            number of steps.
        speed: Lowest and highest length of the longest command of an episode, pixels, before the noise.
        noise_levels: Standard deviations of the noise on each component of a command, pixels; one per episode.
        start_range: Lowest and highest coordinate of the block's centre of gravity at the start, pixels.
        target_range: The same of random poses.
        landmark_share: How often the next pose is that of the green landmark in the images, unless the last one was.
        shape: Name of the block, or names, of which each episode draws one.

    Raises:
        ValueError: If a value is out of its range.
    """

    min_steps: Count = 50
    speed: PixelRange = (15.0, 31.0)
    noise_levels: Annotated[Sequence[Pixel], Len(1, 1000)] = (0.0, 5.0, 10.0, 20.0)
    start_range: PixelRange = (146.0, 366.0)
    target_range: PixelRange = (176.0, 336.0)
    landmark_share: Share = 0.8
    shape: str | Sequence[str] = "T"

    def __post_init__(self) -> None:
        shapes = (self.shape,) if isinstance(self.shape, str) else tuple(self.shape)
        object.__setattr__(self, "shape", shapes)  # plain, whatever list a config gave; below, too
        if not shapes or set(shapes) - set(SHAPES):
            raise ValueError(f"collector.shape must be one or more of {', '.join(SHAPES)}, got {list(shapes)}")
        for name, low, high in (("speed", 1, 100), ("start_range", *_BLOCK_RANGE), ("target_range", *_BLOCK_RANGE)):
            values = _numbers(getattr(self, name))
            if len(values) != 2 or not low <= values[0] <= values[1] <= high:
                raise ValueError(f"collector.{name} must be [lowest, highest] within [{low:g}, {high:g}], got {values}")
            object.__setattr__(self, name, values)
        levels = _numbers(self.noise_levels)
        if not levels or not all(0 <= level <= 100 for level in levels):
            raise ValueError(f"collector.noise_levels must be one or more numbers within [0, 100], got {levels}")
        object.__setattr__(self, "noise_levels", levels)
        if not 0 <= self.landmark_share <= 1:
            raise ValueError(f"collector.landmark_share must be in [0, 1], got {self.landmark_share}")
        if not isinstance(self.min_steps, int) or self.min_steps < 1:
            raise ValueError(f"collector.min_steps must be a whole number, at least 1, got {self.min_steps}")


class PushEpisode:
    """One episode, drawn from ``rng``: where it starts and what will be done in it."""

    def __init__(self, options: PushOptions, rng: np.random.Generator, num_steps: int) -> None:
        shape = str(rng.choice(options.shape))
        shortest = min(options.min_steps, num_steps)
        self.shape = SHAPES.index(shape)
        self.length = shortest + round((num_steps - shortest) * rng.beta(*_LENGTHS))
        self._noise = rng.choice(options.noise_levels) * rng.standard_normal((self.length, 2))
        block, known = _random_pose(rng, options.start_range), contacts(shape)
        turn, agent = cmath.exp(1j * block.angle), block.center
        while known.outside((agent - block.center) / turn).max() <= 0:
            agent = complex(*rng.uniform(*_AGENT_RANGE, 2))
        origin = block.center - known.center * turn
        self.start = (agent.real, agent.imag, origin.real, origin.imag, block.angle, 0.0, 0.0)
        slowest, fastest = options.speed
        speed = rng.uniform(slowest, fastest)
        self._script = PushScript(shape, _targets(options, rng, known.center), rng, speed)

    def move(self, step: int, state: Sequence[float]) -> tuple[float, float]:
        """Tell the agent where to go, relative to where it is, pixels."""
        if step >= self.length:
            return 0.0, 0.0
        command = self._script.command(state) + complex(*self._noise[step])
        return command.real, command.imag


def _targets(options: PushOptions, rng: np.random.Generator, center: complex) -> Iterator[Pose]:
    """Poses for the block without end; ``center`` is its centre of gravity from its origin."""
    landmark = Pose(_LANDMARK.center + center * cmath.exp(1j * _LANDMARK.angle), _LANDMARK.angle)
    at_landmark = False
    while True:
        at_landmark = not at_landmark and rng.random() < options.landmark_share
        yield landmark if at_landmark else _random_pose(rng, options.target_range)


def _random_pose(rng: np.random.Generator, limits: Sequence[float]) -> Pose:
    low, high = limits
    return Pose(complex(*rng.uniform(low, high, 2)), rng.uniform(0, 2 * math.pi))


def _numbers(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
