"""Any Gymnasium environment that draws itself, as one that plans can be made in."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any

import cv2
import gymnasium
import numpy as np
from gymnasium import spaces

from envs.simulator import Array, EpisodeLayout, Simulator
from utils.ranges import Dimension, Index, Positive


class GymnasiumSimulator(Simulator):
    """One episode of a Gymnasium environment with continuous actions and a state that can be set.

    What the environment needs: a ``Box`` of actions of one axis, ``render_mode="rgb_array"``, and a state. That is an
    array ``state`` of the unwrapped environment, or its methods ``get_state()`` and ``set_state(state)``; for one that
    has neither, override the methods of these names here in a subclass, and name that in ``env.simulator.simulator``.
    Its rewards and ends of episodes are not looked at. Images are shrunk to a square.

    What is random in a step draws the same numbers in every episode: an episode begins with ``env.reset(seed=0)``.

    Attributes:
        env: The environment, made by ``gymnasium.make``.
    """

    def __init__(
        self,
        image_size: int = 224,
        id: str = "",
        radius: Positive = 0.1,
        proprio: Sequence[Index] | None = None,
        state_dim: Dimension | None = None,
        proprio_dim: Dimension | None = None,
        env_action_dim: Dimension | None = None,
    ) -> None:
        """Make the environment.

        Args:
            image_size: Side of the images, pixels.
            id: The environment's name, as Gymnasium knows it.
            radius: A goal is reached where the Euclidean distance of the states is less.
            proprio: Entries of the state that are the proprio values; None takes all.
            state_dim: Length of the state that is expected, if any is.
            proprio_dim: The same of the proprio values.
            env_action_dim: The same of an action.

        Raises:
            ValueError: If there is no such environment, or it lacks something.
        """
        super().__init__(image_size)
        self.id, self.radius = id, radius
        self.env = _make(id)
        self.env.reset(seed=0)
        self.name = id
        self.state_dim = len(self.get_state())
        self.env_action_dim = self._actions.shape[0]
        self.proprio_indices = tuple(range(self.state_dim) if proprio is None else proprio)
        for key, expected, found in (
            ("state_dim", state_dim, self.state_dim),
            ("proprio_dim", proprio_dim, len(self.proprio_indices)),
            ("env_action_dim", env_action_dim, self.env_action_dim),
        ):
            if expected not in (None, found):
                raise ValueError(f"env.{key}={expected}: {id} has {found}; set that")
        self._arguments = (image_size, id, radius, proprio)

    def __getstate__(self) -> dict[str, Any]:
        kept = {}
        for name, value in vars(self.env.unwrapped).items():
            try:
                kept[name] = pickle.dumps(value)
            except Exception:  # windows and surfaces, which the copy makes anew; each library refuses in its own way
                continue
        return {"arguments": self._arguments, "state": self.get_state(), "kept": kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self, *state["arguments"])
        vars(self.env.unwrapped).update({name: pickle.loads(value) for name, value in state["kept"].items()})
        if "state" not in state["kept"]:
            self.set_state(state["state"])

    def get_state(self) -> Array:
        """The state (S,) float64 of the episode; override it for an environment that has none to read."""
        own = self.env.unwrapped
        state = own.get_state() if hasattr(own, "get_state") else getattr(own, "state", None)
        if state is None:
            raise ValueError(
                f"env.id={self.id} has neither an array `state` nor get_state() and set_state(state): write a subclass "
                "of envs.gymnasium_simulator.GymnasiumSimulator with these two methods (docs/extending.md)"
            )
        return np.array(state, np.float64).reshape(-1)

    def set_state(self, state: Array) -> None:
        """Put the episode, which has just been reset, into ``state`` (S,)."""
        own: Any = self.env.unwrapped
        if hasattr(own, "get_state"):
            own.set_state(state)
        else:
            own.state = state

    def sample_start_goal(self, seed: int) -> tuple[Array, Array]:  # type: ignore[override]  # of this environment
        """Draw two states in which the environment begins its episodes: (S,) float64 each."""
        self.env.reset(seed=seed)
        start = self.get_state()
        self.env.reset()
        return start, self.get_state()

    def action_range(self) -> tuple[Array, Array]:  # type: ignore[override]
        """The limits of the action space; what lies beyond is cut off."""
        return self._actions.low, self._actions.high

    def compare(self, states: Array, goals: Array) -> tuple[Array, Array]:  # type: ignore[override]
        """Success (B,) bool and distance (B,) of states (B, S) to goals (B, S)."""
        distance = np.linalg.norm(states - goals, axis=1)
        return distance < self.radius, distance

    def reset(self, state: Array, layout: EpisodeLayout) -> Array:
        """Start an episode in ``state`` (S,); returns the state that the environment makes of it.

        Raises:
            ValueError: If the state is not S finite numbers, or a layout is given.
        """
        if layout:
            raise ValueError(f"env {self.name}: all episodes have the same layout, got {sorted(layout)}")
        if state.shape != (self.state_dim,) or not np.isfinite(state).all():
            raise ValueError(f"env {self.name}: a state must be {self.state_dim} finite numbers, got {state}")
        self.env.reset(seed=0)
        self.set_state(np.array(state, np.float64))
        return self.get_state()

    def step(self, actions: Array) -> Array:
        """Execute raw actions (K, env_action_dim), cut off at the limits of the action space; visited states (K, S).

        Raises:
            ValueError: If an action is no number.
        """
        if np.isnan(actions).any():
            raise ValueError("actions must be numbers, got NaN (did the planner diverge?)")
        visited = np.empty((len(actions), self.state_dim))
        for action, row in zip(np.clip(actions, self._actions.low, self._actions.high), visited, strict=True):
            self.env.step(action.astype(self._actions.dtype))
            row[:] = self.get_state()
        return visited

    def render(self) -> Array:
        """The environment's own image, shrunk to (image_size, image_size, 3) uint8."""
        image: Any = self.env.render()
        return cv2.resize(image, (self.image_size, self.image_size), interpolation=cv2.INTER_AREA)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    @property
    def _actions(self) -> spaces.Box:
        space = self.env.action_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"env.id={self.id} takes actions of {space}; planning needs a Box of one axis")
        return space


def _make(id: str) -> gymnasium.Env[Any, Any]:
    if ":" in id:
        raise ValueError(f"env.id={id}: import that module in a simulator of your own instead (docs/extending.md)")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame, which many of them draw with, would look for a screen
    try:
        return gymnasium.make(id, render_mode="rgb_array", disable_env_checker=True)
    except gymnasium.error.Error as error:
        raise ValueError(f"env.id={id}: {' '.join(str(error).split())}") from error
