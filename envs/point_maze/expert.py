"""The random actions behind the PointMaze data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datasets.collecting.behaviour import Behaviour, DrawnActions, Recording
from datasets.formats.episode_store import EpisodeStore, TensorStore
from envs.base import VectorEnv
from envs.point_maze.simulator import PointMazeSimulator
from envs.process_vector import ProcessVectorEnv


@dataclass(frozen=True)
class PointMazeRandomForces(Behaviour):
    """Independent uniform forces from a random place and velocity, which is how the released data were made.

    Attributes:
        max_force: actions are uniform in [-max_force, max_force], at most 1 (100 N).

    Raises:
        ValueError: If ``max_force`` is out of its range.
    """

    max_force: float = 1.0

    folder: ClassVar[str] = "point_maze"
    default_trajectories: ClassVar[int] = 2000
    default_steps: ClassVar[int] = 100
    image_types: ClassVar[tuple[str, ...]] = ("uint8",)

    def __post_init__(self) -> None:
        if not 0 < self.max_force <= 1:
            raise ValueError(f"collector.max_force must be in (0, 1], got {self.max_force}")

    def settings(self) -> dict[str, Any]:
        """All options in plain values."""
        return {"max_force": self.max_force}

    def make_env(self, image_size: int) -> VectorEnv:
        """The maze in this process: collecting is spread over processes already."""
        return ProcessVectorEnv("envs.point_maze.simulator:PointMazeSimulator", image_size=image_size, num_workers=0)

    def store(self, image_type: str) -> EpisodeStore:
        """One tensor per episode, colours last."""
        return TensorStore(getattr(torch, image_type), channels_last=True)

    def begin(self, rngs: Sequence[np.random.Generator], num_steps: int) -> DrawnActions:
        """Draw start and actions of one episode per generator."""
        starts, actions = [], []
        for rng in rngs:
            starts.append(PointMazeSimulator.sample_start_goal(int(rng.integers(2**32)))[0])
            actions.append(rng.uniform(-self.max_force, self.max_force, (num_steps, 2)).astype(np.float32))
        return DrawnActions(torch.from_numpy(np.stack(starts)), {}, torch.from_numpy(np.stack(actions)))

    def tables(self, recording: Recording) -> dict[str, Tensor]:
        """Rows of the three ``point_maze`` tables; the state after the last action is left out."""
        return {
            "actions": recording.actions.double(),
            "seq_lengths": recording.lengths,
            "states": recording.states[:, :-1],
        }
