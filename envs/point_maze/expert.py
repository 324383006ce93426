"""The random actions behind the PointMaze data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from envs.base import VectorEnv
from envs.expert import DrawnActions, Expert, RandomActions
from utils.ranges import Positive


@dataclass(frozen=True)
class PointMazeRandomForces(Expert):
    """Independent uniform forces from a random place and velocity, which is how the released data were made.

    Attributes:
        max_force: Actions are uniform in [-max_force, max_force], at most 1 (100 N).

    Raises:
        ValueError: If ``max_force`` is out of its range.
    """

    max_force: Positive = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.max_force <= 1:
            raise ValueError(f"collector.max_force must be in (0, 1], got {self.max_force}")

    def begin(self, env: VectorEnv, rngs: Sequence[np.random.Generator], num_steps: int) -> DrawnActions:
        """Draw start and actions of one episode per generator."""
        return RandomActions(-self.max_force, self.max_force).begin(env, rngs, num_steps)
