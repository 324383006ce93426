"""One episode of any vector environment as an ordinary Gymnasium environment."""

from __future__ import annotations

import importlib
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from envs.base import VectorEnv
from envs.own_copies import OwnCopies

Observation = dict[str, NDArray[Any]]
OPTIONS = ("state", "goal", "layouts")


class SingleEpisodeEnv(OwnCopies, gymnasium.Env[Observation, NDArray[np.float32]]):
    """A goal-reaching episode: observation {visual, proprio}, reward 1 in the success region, which ends the episode.

    ``reset(seed=s)`` draws the start and goal that ``sample_start_goal([s])`` of the vector environment draws. Its
    options replace them: ``state`` (S,), ``goal`` (S,), and ``layouts``, name -> value of one episode, without the
    batch axis. The goal is not part of the observation; it stands in the info of every reset and step, beside
    ``state``, ``success`` and ``state_dist``.

    Attributes:
        vector_env: The environment underneath.
        goal: (S,) state to reach.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (Gymnasium's own protocol)

    def __init__(
        self,
        vector_env: str | VectorEnv,
        action_limit: float = 1.0,
        proprio_limits: tuple[ArrayLike, ArrayLike] = (-np.inf, np.inf),
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Wrap a vector environment.

        Args:
            vector_env: The environment, or where its class is, as ``module:Class``.
            action_limit: The action space is [-action_limit, action_limit] in each component, raw units. Actions are
                not clipped to it.
            proprio_limits: Lower and upper bound of proprio, each one number or (E,).
            render_mode: "rgb_array" or None.
            **options: Constructor arguments, if ``vector_env`` is a string.

        Raises:
            ValueError: If ``render_mode`` is unknown, or there are options for an environment already built.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be one of {self.metadata['render_modes']} or None, got {render_mode!r}")
        self.vector_env = _build(vector_env, options)
        self.render_mode = render_mode
        self.goal: Tensor = torch.zeros(self.vector_env.state_dim)
        size, proprio_shape = self.vector_env.image_size, (self.vector_env.proprio_dim,)
        low, high = (np.broadcast_to(np.asarray(bound, np.float32), proprio_shape) for bound in proprio_limits)
        self.action_space = spaces.Box(-action_limit, action_limit, (self.vector_env.env_action_dim,), np.float32)
        self.observation_space: spaces.Space[Any] = spaces.Dict(
            visual=spaces.Box(0, 255, (size, size, 3), np.uint8),
            proprio=spaces.Box(low, high, proprio_shape, np.float32),
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; see the class for what ``options`` may hold.

        Raises:
            ValueError: If an option is unknown.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := sorted(set(options) - set(OPTIONS)):
            raise ValueError(f"reset options {unknown} are unknown, known are {sorted(OPTIONS)}")
        episode_seed = int(self.np_random.integers(2**32)) if seed is None else seed
        layouts = {key: torch.as_tensor(value)[None] for key, value in options.get("layouts", {}).items()} or None
        start, goal = options.get("state"), options.get("goal")
        if start is None or goal is None:
            drawn_start, drawn_goal = self.vector_env.sample_start_goal([episode_seed], layouts)
            start = drawn_start[0] if start is None else start
            goal = drawn_goal[0] if goal is None else goal
        state = self.vector_env.reset([episode_seed], torch.as_tensor(start)[None], layouts)
        self.goal = torch.as_tensor(goal).to(state)
        return self._observation(state), self._info(state)

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Execute one raw action (env_action_dim,); reward 1.0 and terminated inside the success region, else 0.0."""
        # float64 is kept: it is what recorded actions may be in
        values = torch.as_tensor(np.asarray(action))
        values = values if values.dtype == torch.float64 else values.float()
        state = self.vector_env.step(values[None, None])[:, -1]
        info = self._info(state)
        return self._observation(state), float(info["success"]), info["success"], False, info

    def render(self) -> NDArray[np.uint8] | None:
        """The current image (image_size, image_size, 3), or None without a render mode."""
        return self._image() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the vector environment."""
        self.vector_env.close()

    def _observation(self, state: Tensor) -> Observation:
        return {"visual": self._image(), "proprio": _own_array(self.vector_env.proprio(state)[0])}

    def _image(self) -> NDArray[np.uint8]:
        """The current image, rounded where the vector environment's images are not whole numbers."""
        frame = self.vector_env.render()[0]
        if frame.is_floating_point():
            frame = frame.round().clamp(0, 255).to(torch.uint8)
        return _own_array(frame.permute(1, 2, 0))

    def _info(self, state: Tensor) -> dict[str, Any]:
        outcome = self.vector_env.success(state, self.goal[None])
        return {
            "state": _own_array(state[0]),
            "goal": _own_array(self.goal),
            "success": bool(outcome.success[0]),
            "state_dist": float(outcome.state_dist[0]),
        }


def _build(vector_env: str | VectorEnv, options: dict[str, Any]) -> VectorEnv:
    if isinstance(vector_env, str):
        module, _, name = vector_env.partition(":")
        built: VectorEnv = getattr(importlib.import_module(module), name)(**options)
        return built
    if options:
        raise ValueError(f"options {sorted(options)} have no effect on an environment that is already built")
    return vector_env


def _own_array(tensor: Tensor) -> NDArray[Any]:
    """Copy to NumPy: whoever gets an observation may keep or change it."""
    return np.array(tensor.cpu().numpy(), order="C")
