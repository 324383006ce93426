"""Carrying actions out in the simulator, to see what they truly lead to, in states and in latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.latent import Latent, cat_latents
from planning.observer import Observer
from planning.simulated import Branches


@dataclass(frozen=True)
class Course:
    """Where actions truly led; time index 0 is the present, and there is one entry per block from then on.

    Attributes:
        states: (b, T + 1, S) true states.
        latent: (b, T + 1) how the model encodes what they show.
        away: (b, T + 1) distance of the states to the goals, as the environment judges it.
        inside: (b, T + 1) whether they lie inside the success region.
    """

    states: Tensor
    latent: Latent
    away: Tensor
    inside: Tensor


def carry_out(branches: Branches, observer: Observer, blocks: Tensor) -> Course:
    """Execute z-scored ``blocks`` (b, T, A), one row for each episode of ``branches``."""
    raw = observer.raw_actions(blocks)
    return watch(branches, observer, raw, raw.shape[1] // blocks.shape[1])


def watch(branches: Branches, observer: Observer, raw: Tensor, frameskip: int) -> Course:
    """Execute raw actions (b, T * frameskip, env_action_dim), one row for each episode of ``branches``."""
    env, goals = branches.env, branches.problem.goal_states
    visited = [branches.begin(torch.arange(len(raw)))]
    seen = [observer.present(env, visited[0])]
    for block in raw.split(frameskip, 1) if raw.shape[1] else ():
        visited.append(env.step(block)[:, -1])
        seen.append(observer.present(env, visited[-1]))
    outcomes = [env.success(states, goals) for states in visited]
    return Course(
        torch.stack(visited, 1).cpu(),
        cat_latents(seen, 1),
        torch.stack([outcome.state_dist for outcome in outcomes], 1).cpu().double(),
        torch.stack([outcome.success for outcome in outcomes], 1).cpu(),
    )
