"""The settings of ``env``, the same for every command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envs.base import VectorEnv
from envs.expert import Expert
from envs.factors import Factors
from utils.env_sizes import EnvSizes
from utils.ranges import Dimension, ProcessesOrZero
from utils.schema import Component, OpenSettings


@dataclass(frozen=True, kw_only=True)
class EnvConfig(OpenSettings):
    """An environment, its data set, and what collects one.

    Attributes:
        name: Of the environment; checkpoints and data sets carry it.
        env_action_dim: Length of one raw action.
        proprio_dim: Length of the proprio values.
        state_dim: Length of the simulator's state.
        num_workers: Processes that read while training; None leaves the number to the trainer.
        simulator: Steps many episodes at once; takes ``image_size``.
        dataset: Reads trajectories; None where the environment has no data, see ``data``.
        collector: Acts where a data set is collected.
    """

    name: str
    env_action_dim: Dimension
    proprio_dim: Dimension
    state_dim: Dimension
    num_workers: ProcessesOrZero | None
    simulator: Component[VectorEnv]
    dataset: Component[Any] | None  # trajectories, whose class stands above this room
    collector: Component[Expert] | None

    @property
    def data(self) -> Component[Any]:
        """The data set, where one is needed.

        Raises:
            ValueError: If there is none.
        """
        if self.dataset is None:
            raise ValueError(
                f"env={self.name} says nothing of its data: choose their format, such as dataset=episodes, or put a "
                f"file dataset/{self.name}.yaml beside its own (docs/extending.md)"
            )
        return self.dataset

    @property
    def factors(self) -> Factors:
        """How its episodes may differ."""
        return self.simulator.build(image_size=1).factors

    @property
    def sizes(self) -> EnvSizes:
        """What a model must fit."""
        return EnvSizes(self.env_action_dim, self.proprio_dim, self.state_dim)
