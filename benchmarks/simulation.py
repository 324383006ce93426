"""Simulators and reading of data, each against the plain way of doing the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.configs import composed
from benchmarks.measure import Case, Work
from benchmarks.plain_pusht import plain_image
from datasets.collect import collections
from datasets.collecting.config import CollectConfig
from datasets.formats.pusht import PushTTrajectories
from datasets.formats.video import read_frames
from envs.base import simulate
from envs.point_maze.simulator import PointMazeSimulator
from envs.process_vector import ProcessVectorEnv
from envs.pusht.simulator import PushTSimulator
from envs.simulator import Simulator
from envs.wall.vector_env import WallVectorEnv

EPISODES, STEPS, FRAME_EVERY = 16, 25, 5


def simulator_cases() -> Iterator[Case]:
    """Wall steps in blocks of 25, and images; rollouts of the other two, with every fifth frame."""
    for episodes in (50, 1000, 20_000):
        yield Case(f"Wall simulator, batch {episodes}", partial(_wall_steps, episodes))
    yield Case("Wall images 65 px, batch 1000", partial(_wall_images, 1000, 65))
    yield Case("Wall images 224 px, batch 50", partial(_wall_images, 50, 224))
    draw_pusht: Callable[[Simulator], object] = lambda one: plain_image(one)  # type: ignore[arg-type]  # noqa: E731
    yield Case(f"PushT rollouts 224 px, batch {EPISODES}", partial(_rollouts, PushTSimulator, 0.2, draw_pusht))
    draw_maze: Callable[[Simulator], object] = lambda one: one.render()  # noqa: E731
    yield Case(f"PointMaze rollouts 224 px, batch {EPISODES}", partial(_rollouts, PointMazeSimulator, 1.0, draw_maze))


def reading_cases(folder: Path) -> Iterator[Case]:
    """One PushT sample of 8 frames, five raw steps apart, against decoding its whole episode of 246."""
    yield Case("PushT sample of 8 frames", partial(_pusht_sample, folder))


def _wall(episodes: int, image_size: int = 65) -> WallVectorEnv:
    env = WallVectorEnv(image_size)
    seeds = range(episodes)
    env.reset(seeds, env.sample_start_goal(seeds)[0])
    return env


@contextlib.contextmanager
def _wall_steps(episodes: int) -> Iterator[Work]:
    env, actions = _wall(episodes), torch.rand(episodes, STEPS, 2) - 0.5
    yield Work(partial(env.step, actions), episodes * STEPS, "steps", counts=False)


@contextlib.contextmanager
def _wall_images(episodes: int, image_size: int) -> Iterator[Work]:
    yield Work(_wall(episodes, image_size).render, episodes, "frames", counts=False)


@contextlib.contextmanager
def _rollouts(kind: type[Simulator], limit: float, draw: Callable[[Simulator], object]) -> Iterator[Work]:
    """16 rollouts of 25 raw steps with every fifth frame at 224 px, against one process that draws after every step."""
    env = ProcessVectorEnv(f"{kind.__module__}:{kind.__name__}", 224)
    seeds = list(range(EPISODES))
    states, layouts = env.sample_start_goal(seeds)[0], env.default_layouts(EPISODES)
    actions = (torch.rand(EPISODES, STEPS, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1) * limit
    one = kind(224)
    layout = {key: value[0].numpy() for key, value in layouts.items()}

    def plain() -> None:
        for state, moves in zip(states.numpy(), actions.numpy(), strict=True):
            one.reset(state, layout)
            for move in moves:
                one.step(move[None])
                draw(one)

    work = partial(simulate, env, seeds, states, actions, layouts, FRAME_EVERY)
    frames = EPISODES * (STEPS // FRAME_EVERY + 1)
    try:
        yield Work(work, frames, "frames", counts=False, plain=lambda: {"plain": plain})
    finally:
        env.close()
        one.close()


@contextlib.contextmanager
def _pusht_sample(folder: Path) -> Iterator[Work]:
    sizes = ["n_rollout=2", "n_val=2", "num_steps=246", "env.collector.min_steps=246", "chunk_size=1"]
    root = folder / "pusht_noise"
    for collection in collections(composed(CollectConfig, ["env=pusht", *sizes, f"data_path={root}"], "collect")):
        collection.run(1)
    data = PushTTrajectories(root)
    path = root / "train" / "obses" / "episode_000.mp4"
    generator = torch.Generator().manual_seed(0)

    def sample() -> Tensor:
        first = int(torch.randint(246 - 40, (), generator=generator))
        return data.frames(0, range(first, first + 40, 5))

    def all_frames() -> object:
        return read_frames(path, range(246), 246)

    yield Work(sample, 1, "samples", counts=False, plain=lambda: {"plain": all_frames})
