"""The contract of a simulator that plays one episode at a time, in plain NumPy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.factors import Factors
from envs.own_copies import OwnCopies

Array = NDArray[Any]
EpisodeLayout = Mapping[str, Array]
"""An episode layout: what differs besides the state, e.g. a block's shape; name -> array."""


class Simulator(OwnCopies, ABC):
    """One episode of an environment whose physics comes from a library that knows no batches.

    ``envs.process_vector.ProcessVectorEnv`` makes a batch out of many of these, in worker processes. Modules with a
    simulator import neither torch nor anything that does: a worker then starts in a fraction of the time and memory.
    What the episodes of one process can share (a compiled model, a graphics context) belongs to the class or module.

    A copy made by ``copy`` or ``pickle``, at any moment, goes on with the same bits and by itself. A simulator that
    holds what these modules do not copy so (a library's objects, views of their memory) says how, by ``__getstate__``
    and ``__setstate__``.

    Attributes:
        name: Of the environment, as in ``env=<name>``.
        state_dim: Length of a state, S.
        env_action_dim: Length of one raw action.
        proprio_indices: Entries of the state that are the proprio values, in order; E of them.
        factors: How episodes may differ, by name; what they draw are further keys of layouts, which ``reset`` takes.
    """

    name: str
    state_dim: int
    env_action_dim: int
    proprio_indices: tuple[int, ...]
    factors: Factors = MappingProxyType({})

    def __init__(self, image_size: int = 224) -> None:
        """Set up a simulator without an episode; cheap: graphics start with the first image.

        Args:
            image_size: Side of the images that ``render`` returns, pixels.

        Raises:
            ValueError: If it is not positive.
        """
        if image_size < 1:
            raise ValueError(f"env.image_size must be at least 1 pixel, got {image_size}")
        self.image_size = image_size

    @classmethod
    def default_layout(cls) -> dict[str, Array]:
        """The layout of an episode about which nothing else is said; empty where all episodes are alike."""
        return {}

    @classmethod
    @abstractmethod
    def sample_start_goal(cls, seed: int) -> tuple[Array, Array]:
        """Draw an independent start and goal state: two (S,) float64 arrays."""

    @classmethod
    @abstractmethod
    def compare(cls, states: Array, goals: Array) -> tuple[Array, Array]:
        """Success (B,) bool and distance (B,) float64 of states (B, S) to goals (B, S)."""

    @classmethod
    def action_range(cls) -> tuple[Array, Array]:
        """Give the lowest and highest raw action of ordinary use; see ``VectorEnv.action_range``."""
        return -np.ones(cls.env_action_dim), np.ones(cls.env_action_dim)

    @classmethod
    def places(cls, states: Array) -> dict[str, Array]:
        """Say where in the images things are in ``states`` (..., S); see ``VectorEnv.places``."""
        return {}

    @classmethod
    def misplaced(cls, state: Array, layout: EpisodeLayout) -> str:
        """Say what is wrong with the place of a finite state (S,), such as a wall there; "" if nothing is."""
        return ""

    @abstractmethod
    def reset(self, state: Array, layout: EpisodeLayout) -> Array:
        """Start an episode in ``state`` (S,); returns the state (S,) float64 that it really starts from.

        Raises:
            ValueError: If the state is not finite or the layout is unknown.
        """

    @abstractmethod
    def step(self, actions: Array) -> Array:
        """Execute raw actions (K, env_action_dim), float32 or float64; returns the visited states (K, S) float64."""

    @abstractmethod
    def render(self) -> Array:
        """The image (image_size, image_size, 3) uint8 of the current state."""

    def close(self) -> None:
        """Release what only this simulator holds."""
