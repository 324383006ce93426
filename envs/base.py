"""The contract of every environment, and the one simulation loop written over it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.factors import Factors
from envs.own_copies import OwnCopies

EpisodeLayouts = Mapping[str, Tensor]
"""Episode layouts: what differs between episodes besides their state, e.g. a door's place; name -> (B, ...)."""


@dataclass(frozen=True)
class Outcome:
    """The distance of some states from their goals.

    Attributes:
        success: (B,) bool, inside the success region.
        state_dist: (B,) distance in the environment's own units.
    """

    success: Tensor
    state_dist: Tensor


@dataclass(frozen=True)
class Trajectory:
    """The course of a simulation; time index 0 is the start.

    Attributes:
        states: (B, K + 1, S) true states, one per raw step.
        frames: (B, K // frame_every + 1, 3, H, W) images in 0..255 of every ``frame_every``-th state, if asked for.
        frame_every: Raw steps between two frames.
    """

    states: Tensor
    frames: Tensor | None
    frame_every: int


class VectorEnv(OwnCopies, ABC):
    """A batch of independent episodes of one environment, stepped forward together.

    The simulator keeps the true state; images exist only where ``render`` is called. Nothing here knows a model.
    A copy (``copy``, ``pickle``) goes on with the same episodes, bit for bit and by itself.

    Attributes:
        name: Of the environment, as in ``env=<name>``.
        state_dim: Length of a state, S.
        proprio_dim: Length of the proprio values, E.
        env_action_dim: Length of one raw action.
        image_size: Side of the square images that ``render`` returns, pixels.
        plays_in_background: Whether one thread may play while another computes, as long as only one plays at a time.
    """

    name: str
    state_dim: int
    proprio_dim: int
    env_action_dim: int
    image_size: int
    plays_in_background = True

    @property
    def factors(self) -> Factors:
        """How episodes may differ, by name; what they draw are further keys of layouts, which ``reset`` takes."""
        return {}

    @abstractmethod
    def default_layouts(self, num_episodes: int) -> dict[str, Tensor]:
        """Repeat the layout of an episode about which nothing else is said, ``num_episodes`` times."""

    @abstractmethod
    def sample_start_goal(self, seeds: Sequence[int], layouts: EpisodeLayouts | None = None) -> tuple[Tensor, Tensor]:
        """Draw an independent start and goal state per seed: two (B, S) tensors."""

    @abstractmethod
    def reset(self, seeds: Sequence[int], states: Tensor, layouts: EpisodeLayouts | None = None) -> Tensor:
        """Start one episode per row of ``states`` (B, S); returns the states (B, S) the episodes really start from."""

    @abstractmethod
    def step(self, actions: Tensor) -> Tensor:
        """Execute blocks of raw actions (B, K, env_action_dim), K steps each; returns the visited states (B, K, S)."""

    @abstractmethod
    def render(self, rows: Tensor | None = None) -> Tensor:
        """Images (b, 3, image_size, image_size) of the current states, values 0..255 (uint8 or float32).

        Args:
            rows: (b,) episodes to draw; None draws all. Nothing is computed for the others.
        """

    def rollout(self, actions: Tensor, frame_every: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Step and render in one go; an environment may do it faster than by one call after the other.

        Args:
            actions: (B, K, env_action_dim) raw actions.
            frame_every: Raw steps between two frames, the first of the state before the first step; None: no frames.

        Returns:
            The visited states (B, K, S), and frames (B, K // frame_every + 1, 3, H, W) or None.

        Raises:
            ValueError: If K is not a multiple of ``frame_every``.
        """
        num_steps, block = actions.shape[1], self._block(actions, frame_every)
        if frame_every is None:
            return self.step(actions), None
        visited, frames = [self.step(actions[:, :0])], [self.render()]
        for start in range(0, num_steps, block):
            visited.append(self.step(actions[:, start : start + block]))
            frames.append(self.render())
        return torch.cat(visited, 1), torch.stack(frames, 1)

    def action_range(self) -> tuple[Tensor, Tensor]:
        """Give the lowest and highest raw action of ordinary use, (env_action_dim,) each; others are not refused.

        An environment that does not override this takes [-1, 1].
        """
        return -torch.ones(self.env_action_dim), torch.ones(self.env_action_dim)

    @abstractmethod
    def proprio(self, states: Tensor) -> Tensor:
        """Tell what the agent senses of its own body, in raw units: (..., S) -> (..., E) float32."""

    @abstractmethod
    def success(self, states: Tensor, goals: Tensor) -> Outcome:
        """Compare states (B, S) with goals (B, S)."""

    def places(self, states: Tensor) -> dict[str, Tensor]:
        """Say where in the images things are in ``states`` (..., S): name -> (..., 2), x and y, in 0..1.

        Counted from the upper left corner. An environment that does not override this names nothing; no paths of it
        are drawn then.
        """
        return {}

    def misplaced(self, states: Tensor, layouts: EpisodeLayouts | None = None) -> list[str]:
        """Say what is wrong with the place of each of ``states`` (B, S), such as a wall there; "" where nothing is.

        An environment that does not override this knows no wrong places. The states are finite.
        """
        return [""] * len(states)

    def _check_states(self, seeds: Sequence[int], states: Tensor) -> None:
        """Refuse states to start from that are not (B, S) numbers, one row for each seed."""
        shape = (len(seeds), self.state_dim)
        if states.shape != shape or states.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"env {self.name}: states must be float32 or float64 of shape {shape}, one per seed, "
                f"got {states.dtype} of shape {tuple(states.shape)}"
            )

    def _check_actions(self, actions: Tensor, num_episodes: int) -> None:
        """Refuse blocks of actions that are not (B, K, env_action_dim)."""
        if actions.ndim != 3 or actions.shape[::2] != (num_episodes, self.env_action_dim):
            expected = f"({num_episodes}, K, {self.env_action_dim})"
            raise ValueError(f"env {self.name}: actions must be {expected}, got {tuple(actions.shape)}")

    def _block(self, actions: Tensor, frame_every: int | None) -> int:
        """Raw steps between two frames, or all of the block (B, K, env_action_dim) where none are wanted."""
        num_steps = actions.shape[1]
        block = max(num_steps, 1) if frame_every is None else frame_every
        if block < 1 or num_steps % block:
            raise ValueError(f"env {self.name}: {num_steps} actions are not a multiple of {frame_every=}")
        return block

    def close(self) -> None:
        """Release worker processes and graphics contexts."""


def simulate(
    env: VectorEnv,
    seeds: Sequence[int],
    states: Tensor,
    actions: Tensor,
    layouts: EpisodeLayouts | None = None,
    frame_every: int | None = None,
) -> Trajectory:
    """Run raw ``actions`` from ``states``, rendering only the frames that were asked for.

    Args:
        env: The environment; its current episodes are replaced.
        seeds: B environment seeds.
        states: (B, S) start states.
        actions: (B, K, env_action_dim) raw actions.
        layouts: Per-episode layouts; None means the environment's own default.
        frame_every: Raw steps between two rendered frames (the start is rendered too); None renders nothing.

    Raises:
        ValueError: If K is not a multiple of ``frame_every``.
    """
    start = env.reset(seeds, states, layouts)[:, None]
    visited, frames = env.rollout(actions, frame_every)
    return Trajectory(torch.cat([start, visited], 1), frames, frame_every or max(actions.shape[1], 1))
