"""Acting out the episodes of an expert, in one batched simulation."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from datasets.writer import Recording
from envs.base import VectorEnv
from envs.expert import Expert
from envs.factors import Factors
from envs.vary import vary


def trajectory_generators(
    seed: int, numbers: Sequence[int], stream: int = 0
) -> tuple[list[np.random.Generator], list[int]]:
    """A generator and an environment seed for each trajectory number, the same whichever others are asked for."""
    keys = [(number,) if stream == 0 else (stream, number) for number in numbers]
    sequences = [np.random.SeedSequence(seed, spawn_key=key) for key in keys]
    return [np.random.default_rng(each) for each in sequences], [int(each.generate_state(1)[0]) for each in sequences]


def record(
    env: VectorEnv,
    expert: Expert,
    seed: int,
    numbers: Sequence[int],
    num_steps: int,
    frame_dtype: torch.dtype | None = None,
    stream: int = 0,
    frames_after_last: int = 1,
    factors: Factors = MappingProxyType({}),
) -> Recording:
    """Act out the trajectories with these numbers.

    Args:
        env: The environment; its current episodes are replaced.
        expert: What to do in it.
        seed: Of the data set.
        numbers: B trajectory numbers.
        num_steps: Raw steps, K.
        frame_dtype: Uint8 (rounded) or float32 images of every state; None renders nothing.
        stream: Tells the random numbers of one subset of the data from those of another.
        frames_after_last: Images of a trajectory beyond one for each of its raw actions.
        factors: By which the world of every trajectory differs.
    """
    rngs, env_seeds = trajectory_generators(seed, numbers, stream)
    episodes = expert.numbered(env, numbers, rngs, num_steps)
    starts, layouts = vary(factors, env_seeds, [episodes.states], episodes.layouts)
    # rounded as a file may hold it: replaying the file gives the same episode
    states = env.reset(env_seeds, starts.float().double() if factors else starts, layouts)
    visited, actions, frames = [states], [], None
    if frame_dtype is not None:
        size = (len(numbers), num_steps + 1, 3, env.image_size, env.image_size)
        frames = torch.zeros(size, dtype=frame_dtype)
        frames[:, 0] = _cast(env.render(), frame_dtype)
    for step in range(num_steps):
        actions.append(episodes.act(step, states).float())
        states = env.step(actions[-1][:, None])[:, 0]
        visited.append(states)
        rows = (episodes.lengths + frames_after_last > step + 1).nonzero().flatten()
        if frames is not None and len(rows):
            frames[rows, step + 1] = _cast(env.render(rows), frames.dtype)
    every = torch.stack(visited, 1)
    return Recording(every, env.proprio(every), torch.stack(actions, 1), layouts, frames, episodes.lengths)


def _cast(frames: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = frames.round() if frames.is_floating_point() and dtype == torch.uint8 else frames
    return rounded.to("cpu", dtype)
