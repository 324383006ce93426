"""The train-test gap: a model's one-step error where it was trained, and where planners take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.trajectories import Trajectories
from datasets.units.folding import fold_actions
from envs.base import VectorEnv, simulate
from planning.mpc import MPCController
from planning.observer import Observer
from planning.planners.base import Planner
from planning.task import PlanningTask


@dataclass(frozen=True)
class Visits:
    """Trajectories in raw units, played in the simulator.

    Attributes:
        seeds: B environment seeds.
        states: (B, S) starts.
        actions: (B, K, env_action_dim) raw actions.
        layouts: Name -> (B, ...).
    """

    seeds: list[int]
    states: Tensor
    actions: Tensor
    layouts: dict[str, Tensor]


def planner_visits(task: PlanningTask, planner: Planner) -> Visits:
    """Follow a model's own plans: plan once per problem, and carry the plans out."""
    controller = MPCController.of(planner)
    episodes = task.start()
    starts = episodes.states
    controller.run(task, episodes)
    return Visits(task.problem.seeds, starts, episodes.played, task.problem.layouts)


@torch.no_grad()
def one_step_error(env: VectorEnv, observer: Observer, visits: Visits, frameskip: int) -> dict[str, Sequence[float]]:
    """Measure the teacher-forced prediction error on each visited trajectory.

    Returns:
        ``visual_mse`` and ``proprio_mse``: lists of B means over all windows of a trajectory. Comparable between models
        that share encoder, projector and proprio encoder.
    """
    model = observer.model
    every = frameskip if observer.wants_frames else None
    played = simulate(env, visits.seeds, visits.states, visits.actions, visits.layouts, every)
    states = played.states[:, ::frameskip]
    latent = model.embed(observer.features(states, played.frames), observer.proprio(env, states))
    blocks = observer.normalizer.actions_to_z(fold_actions(visits.actions, frameskip))
    windows = model.windows(latent, blocks.to(observer.device))
    predicted = model.predict(windows.source, windows.actions)
    errors = {}
    for name in ("visual", "proprio"):
        square = (getattr(predicted, name) - getattr(windows.target, name)).square().flatten(1).mean(1)
        errors[f"{name}_mse"] = square.unflatten(0, (len(visits.seeds), -1)).mean(1).tolist()
    return errors


def dataset_visits(trajectories: Trajectories, numbers: Sequence[int], count: int, num_steps: int, seed: int) -> Visits:
    """Draw ``count`` segments of ``num_steps`` raw steps from the recorded trajectories ``numbers``."""
    draw = np.random.default_rng(seed)
    chosen = draw.choice(np.asarray([i for i in numbers if int(trajectories.lengths[i]) >= num_steps]), count)
    begins = [int(draw.integers(int(trajectories.lengths[i]) - num_steps + 1)) for i in chosen]
    layouts = [trajectories.layout(int(i)) for i in chosen]
    return Visits(
        chosen.tolist(),
        torch.stack([trajectories.states[int(i)][k].double() for i, k in zip(chosen, begins, strict=True)]),
        torch.stack([trajectories.actions[int(i)][k : k + num_steps] for i, k in zip(chosen, begins, strict=True)]),
        {name: torch.stack([layout[name] for layout in layouts]) for name in layouts[0]},
    )
