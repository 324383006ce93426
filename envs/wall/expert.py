"""The random walk behind the Wall data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Interval, Len

from envs.base import VectorEnv
from envs.expert import DrawnActions, Expert
from envs.wall.dynamics import BORDER_HIGH, BORDER_LOW, WALL_HALF_WIDTH
from envs.wall.factors import DOOR_KEY, WALL_KEY
from utils.ranges import NonNegative, Positive

WholePixelRange = Annotated[Sequence[Annotated[int, Interval(ge=0, le=64)]], Len(2, 2)]
"""First and last coordinate."""

_DISTRIBUTIONS = ("von_mises", "normal")


@dataclass(frozen=True)
class WallRandomWalk(Expert):
    """A walk with a drifting heading and a random step length, from a uniform start in the free space.

    Attributes:
        step_mean, step_std: Of the step length before truncation, in units of an action (2 pixels).
        step_min, step_max: Range the step length is truncated to.
        heading_noise: How much the heading changes from step to step. For ``von_mises`` the inverse of the
            concentration, for ``normal`` the standard deviation in radians.
        heading_distribution: ``von_mises`` or ``normal``.
        door_range, wall_range: First and last value of the door's y and the wall's x, whole pixels, drawn uniformly
            per trajectory; equal values fix the layout.

    Raises:
        ValueError: If a value is out of its range.

    Deviation: the released data fit heading noise 0.2 with a simulator of half the gain. With the environment's own
    step that spreads the states too widely (standard deviation 18.3, 19.0 instead of 17.7, 17.3), so that
    the default is 0.5; the actions keep the released distribution (deviation 0.75 per component).
    """

    step_mean: NonNegative = 1.0
    step_std: Positive = 0.4
    step_min: NonNegative = 0.2
    step_max: NonNegative = 1.8
    heading_noise: Positive = 0.5
    heading_distribution: str = "von_mises"
    door_range: WholePixelRange = (30, 30)
    wall_range: WholePixelRange = (32, 32)

    def __post_init__(self) -> None:
        if not (self.step_std > 0 and 0 <= self.step_min < self.step_max < math.inf):
            raise ValueError(
                "collector: expected step_std > 0 and 0 <= step_min < step_max, "
                f"got step_std={self.step_std}, step_min={self.step_min}, step_max={self.step_max}"
            )
        if not self.step_min <= self.step_mean <= self.step_max:
            raise ValueError(
                f"collector.step_mean must be in [{self.step_min}, {self.step_max}], from step_min to step_max, got "
                f"{self.step_mean}"
            )
        if self.heading_distribution not in _DISTRIBUTIONS:
            raise ValueError(
                f"collector.heading_distribution must be one of {_DISTRIBUTIONS}, got {self.heading_distribution!r}"
            )
        if not 0 < self.heading_noise < math.inf:
            raise ValueError(f"collector.heading_noise must be positive, got {self.heading_noise}")
        for name, margin in (("door_range", 4), ("wall_range", 6)):  # a door in the border or a room without a floor
            values = list(getattr(self, name))
            low, high = int(BORDER_LOW) + margin, int(BORDER_HIGH) - margin
            if len(values) != 2 or not low <= values[0] <= values[1] <= high or any(v != int(v) for v in values):
                raise ValueError(f"collector.{name} must be [first, last], whole, within [{low}, {high}], got {values}")
            object.__setattr__(self, name, (int(values[0]), int(values[1])))  # plain, whatever list a config gave

    def begin(self, env: VectorEnv, rngs: Sequence[np.random.Generator], num_steps: int) -> DrawnActions:
        """Draw layout, start and all actions of one walk per generator."""
        doors, walls, starts, actions = zip(*(self._walk(rng, num_steps) for rng in rngs), strict=True)
        return DrawnActions(
            # rounded to float32, as the file holds it: replaying the file gives the same episode
            states=torch.from_numpy(np.stack(starts).astype(np.float32)).double(),
            layouts={
                DOOR_KEY: torch.tensor(doors, dtype=torch.float32)[:, None],
                WALL_KEY: torch.tensor(walls, dtype=torch.float32)[:, None],
            },
            actions=torch.from_numpy(np.stack(actions).astype(np.float32)),
        )

    def _walk(self, rng: np.random.Generator, num_steps: int) -> tuple[int, int, np.ndarray, np.ndarray]:
        door, wall = (
            int(rng.integers(first, last, endpoint=True)) for first, last in (self.door_range, self.wall_range)
        )
        x, y = rng.uniform(BORDER_LOW, BORDER_HIGH, 2)
        while abs(x - wall) <= WALL_HALF_WIDTH:
            x = rng.uniform(BORDER_LOW, BORDER_HIGH)
        heading = rng.uniform(-np.pi, np.pi) + np.cumsum(self._turns(rng, num_steps))
        directions = np.stack((np.cos(heading), np.sin(heading)), -1)
        return door, wall, np.array((x, y)), directions * self._lengths(rng, num_steps)[:, None]

    def _turns(self, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        if self.heading_distribution == "normal":
            return rng.normal(0.0, self.heading_noise, num_steps)
        return rng.vonmises(0.0, 1 / self.heading_noise, num_steps)

    def _lengths(self, rng: np.random.Generator, num_steps: int) -> np.ndarray:
        """A truncated normal by its inverse distribution function: one uniform number per step, none rejected."""
        bounds = torch.tensor([self.step_min, self.step_max], dtype=torch.float64)
        low, high = torch.special.ndtr((bounds - self.step_mean) / self.step_std).tolist()
        normal = torch.special.ndtri(torch.from_numpy(rng.uniform(low, high, num_steps))).numpy()
        return np.clip(self.step_mean + self.step_std * normal, self.step_min, self.step_max)
