"""Scripted experts: where the episodes of a data set start, and what is done in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from envs.base import VectorEnv
from utils.ranges import Coordinate, Count


class Episodes(Protocol):
    """B episodes about to be acted out."""

    @property
    def states(self) -> Tensor:
        """(B, S) float64, where they start."""

    @property
    def layouts(self) -> Mapping[str, Tensor]:
        """Name -> (B, ...), what the environment must be told about each."""

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, raw actions of each that belong to the data, at most the K that are played."""

    def act(self, step: int, states: Tensor) -> Tensor:
        """Raw actions (B, env_action_dim) float32 at raw step ``step``, with the episodes in ``states`` (B, S)."""


@dataclass(frozen=True)
class DrawnActions:
    """``Episodes`` whose actions were drawn beforehand: ``actions`` (B, K, env_action_dim)."""

    states: Tensor
    layouts: Mapping[str, Tensor]
    actions: Tensor

    @property
    def lengths(self) -> Tensor:
        """The number of actions that were drawn, for every episode."""
        return torch.full(self.actions.shape[:1], self.actions.shape[1])

    def act(self, step: int, states: Tensor) -> Tensor:
        """The drawn actions (B, env_action_dim) of this step, wherever the episodes are."""
        return self.actions[:, step]


class Expert(ABC):
    """A script that acts in the episodes of a data set; ``env.collector`` of a config is one of these.

    Its attributes are its options, in plain values. Equal options make equal episodes.
    """

    @abstractmethod
    def begin(self, env: VectorEnv, rngs: Sequence[np.random.Generator], num_steps: int) -> Episodes:
        """Draw one episode from each generator; an episode must not depend on which others are drawn with it.

        Args:
            env: The environment that they will be played in; it is left as it is.
            rngs: B generators.
            num_steps: Raw steps that are played, K.
        """

    def numbered(
        self, env: VectorEnv, numbers: Sequence[int], rngs: Sequence[np.random.Generator], num_steps: int
    ) -> Episodes:
        """Begin the episodes with these numbers, of which the data set has ``most_episodes``; by default all alike.

        Args:
            env: See ``begin``.
            numbers: B trajectory numbers.
            rngs: B generators, one for each.
            num_steps: See ``begin``.
        """
        return self.begin(env, rngs, num_steps)

    @property
    def most_episodes(self) -> int | None:
        """How many different episodes there are; None where there is no end to them."""
        return None

    @property
    def most_steps(self) -> int | None:
        """Raw steps of the longest; None where episodes are as long as they are asked to be."""
        return None

    def settings(self) -> dict[str, Any]:
        """Name all options that the episodes depend on."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    def of_subset(self, subset: str) -> Expert:
        """The expert for one of the parts of a data set, such as ``val``; by default the same for all."""
        return self


@dataclass(frozen=True)
class RandomActions(Expert):
    """Independent uniform actions from wherever the environment starts episodes: an expert for any environment.

    Attributes:
        low: Lowest value of each entry of an action, raw units.
        high: Highest value.
        hold: Raw steps for which an action is repeated; more than one leads farther.

    Raises:
        ValueError: If the range is empty or ``hold`` is not positive.
    """

    low: Coordinate = -1.0
    high: Coordinate = 1.0
    hold: Count = 1

    def __post_init__(self) -> None:
        if not (-np.inf < self.low < self.high < np.inf and self.hold >= 1):
            raise ValueError(
                "collector: expected finite low < high and hold of at least 1, "
                f"got low={self.low}, high={self.high}, hold={self.hold}"
            )

    def begin(self, env: VectorEnv, rngs: Sequence[np.random.Generator], num_steps: int) -> DrawnActions:
        """Draw start and actions of one episode per generator."""
        starts, _ = env.sample_start_goal([int(rng.integers(2**32)) for rng in rngs])
        layouts = env.default_layouts(len(rngs))
        drawn = [rng.uniform(self.low, self.high, (-(-num_steps // self.hold), env.env_action_dim)) for rng in rngs]
        actions = np.repeat(np.stack(drawn), self.hold, axis=1)[:, :num_steps].astype(np.float32)
        return DrawnActions(starts, layouts, torch.from_numpy(actions))
