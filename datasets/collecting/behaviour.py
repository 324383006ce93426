"""How the trajectories of a data set come about: where episodes start and what is done in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from datasets.formats.episode_store import EpisodeStore, save_tensors
from envs.base import VectorEnv


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
        """All are as long as what was drawn."""
        return torch.full(self.actions.shape[:1], self.actions.shape[1])

    def act(self, step: int, states: Tensor) -> Tensor:
        """The drawn actions (B, env_action_dim) of this step, wherever the episodes are."""
        return self.actions[:, step]


@dataclass(frozen=True)
class Recording:
    """What happened in B episodes of K steps.

    Attributes:
        states: (B, K + 1, S), the start first.
        actions: (B, K, env_action_dim) float32, raw.
        layouts: name -> (B, ...).
        frames: (B, K + 1, 3, H, W) uint8 or float32, 0..255, or None; black where an episode is over.
        lengths: (B,) int64, raw actions of each that belong to the data.
    """

    states: Tensor
    actions: Tensor
    layouts: Mapping[str, Tensor]
    frames: Tensor | None
    lengths: Tensor


class Behaviour(ABC):
    """A recipe for the data of one environment; an option of the config group is one of these.

    Attributes:
        folder: of the data set, below the folder of all data sets.
        default_trajectories: number of trajectories of the released data set.
        default_steps: raw steps of a trajectory of the released data set; of the longest, where they differ.
        subsets: subfolders of the data set, each with its default number of trajectories; {} where there are none.
        image_types: how images may be stored; the first is as released.
        frames_after_last: images of a trajectory beyond one for each of its raw actions.
        stream: tells the random numbers of one subset from those of another.
    """

    folder: ClassVar[str]
    default_trajectories: ClassVar[int]
    default_steps: ClassVar[int]
    subsets: ClassVar[Mapping[str, int]] = {}
    image_types: ClassVar[tuple[str, ...]]
    frames_after_last: ClassVar[int] = 0
    stream: int = 0

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All options that the episodes depend on, by name, in plain values; equal settings make equal data."""

    @abstractmethod
    def make_env(self, image_size: int) -> VectorEnv:
        """The environment that the episodes are simulated in."""

    @abstractmethod
    def begin(self, rngs: Sequence[np.random.Generator], num_steps: int) -> Episodes:
        """Draw one episode from each generator; an episode must not depend on which others are drawn with it."""

    @abstractmethod
    def store(self, image_type: str) -> EpisodeStore:
        """What writes the images of an episode, for one of ``image_types``."""

    @abstractmethod
    def tables(self, recording: Recording) -> dict[str, Tensor]:
        """The rows (B, ...) of each table, in the layout of the released data; ``states`` among them."""

    def of_subset(self, subset: str) -> Behaviour:
        """The recipe of one of ``subsets``."""
        return self

    def write_table(self, folder: Path, name: str, table: Tensor) -> None:
        """Write a whole table, as ``<name>.pth``."""
        save_tensors(folder / f"{name}.pth", table)


def trajectory_generators(
    seed: int, numbers: Sequence[int], stream: int = 0
) -> tuple[list[np.random.Generator], list[int]]:
    """A generator and an environment seed for each trajectory number, the same whichever others are asked for."""
    keys = [(number,) if stream == 0 else (stream, number) for number in numbers]
    sequences = [np.random.SeedSequence(seed, spawn_key=key) for key in keys]
    return [np.random.default_rng(each) for each in sequences], [int(each.generate_state(1)[0]) for each in sequences]


def record(
    env: VectorEnv,
    behaviour: Behaviour,
    seed: int,
    numbers: Sequence[int],
    num_steps: int,
    frame_dtype: torch.dtype | None = None,
) -> Recording:
    """Act out the trajectories with these numbers in one batched simulation.

    Args:
        env: environment made by the same behaviour; its current episodes are replaced.
        behaviour: what to do in it.
        seed: of the data set.
        numbers: B trajectory numbers.
        num_steps: K, raw steps.
        frame_dtype: uint8 (rounded) or float32 images of every state; None renders nothing.
    """
    rngs, env_seeds = trajectory_generators(seed, numbers, behaviour.stream)
    episodes = behaviour.begin(rngs, num_steps)
    states = env.reset(env_seeds, episodes.states, episodes.layouts)
    visited, actions, frames = [states], [], None
    if frame_dtype is not None:
        size = (len(numbers), num_steps + 1, 3, env.image_size, env.image_size)
        frames = torch.zeros(size, dtype=frame_dtype)
        frames[:, 0] = _cast(env.render(), frame_dtype)
    for step in range(num_steps):
        actions.append(episodes.act(step, states).float())
        states = env.step(actions[-1][:, None])[:, 0]
        visited.append(states)
        rows = (episodes.lengths + behaviour.frames_after_last > step + 1).nonzero().flatten()
        if frames is not None and len(rows):
            frames[rows, step + 1] = _cast(env.render(rows), frames.dtype)
    return Recording(torch.stack(visited, 1), torch.stack(actions, 1), episodes.layouts, frames, episodes.lengths)


def _cast(frames: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = frames.round() if frames.is_floating_point() and dtype == torch.uint8 else frames
    return rounded.to("cpu", dtype)
