"""An online refresh as an earlier release did it: plan, replay in one simulator after the other, draw every step."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.plain.model import PlainModel
from benchmarks.plain.planning import PlainDescent, PlainProblem
from datasets.batch import Batch
from envs.base import VectorEnv
from planning.observer import Observer


def plain_refresh(
    model: PlainModel, env: VectorEnv, observer: Observer, batch: Batch, actions: Tensor, steps: int, context: int
) -> tuple[Tensor, Tensor]:
    """Plan from each sample's first frame to the one ``horizon`` blocks later, execute, encode.

    Args:
        model: ``as_shipped``.
        env: Is stepped one episode at a time.
        observer: Knows the units.
        actions: (B, T, A) z-scored blocks that the plans start from.
        steps: Of the optimiser.

    Returns:
        Features (B, T + 1, P, D) of the simulated frames, and the z-scored blocks (B, T, A) that led to them.
    """
    horizon = actions.shape[1]
    assert batch.visual is not None, "the plain way has no cache of latents"
    with torch.no_grad():
        goal = model.encode(batch.visual[:, horizon : horizon + 1], batch.proprio[:, horizon : horizon + 1])
    problem = PlainProblem(batch.visual[:, :1], batch.proprio[:, :1], goal, context)
    descent = PlainDescent(model, problem, actions, lr=0.3)
    for _ in range(steps):
        descent.step()
    planned = descent.actions.detach()
    raw = observer.normalizer.actions_to_raw(planned.cpu().reshape(len(batch), -1, env.env_action_dim))
    frames = torch.stack([_replayed(env, batch, row, raw[row], len(raw[row]) // horizon) for row in range(len(batch))])
    with torch.no_grad():
        return model.world.encoder(frames.to(planned.device)), planned


def _replayed(env: VectorEnv, batch: Batch, row: int, raw: Tensor, frameskip: int) -> Tensor:
    """Frames (T + 1, 3, S, S) of one episode; all its frames are drawn and kept, to use every ``frameskip``-th."""
    layouts = {name: value[row : row + 1].cpu() for name, value in batch.layouts.items()}
    env.reset([int(batch.trajectory[row])], batch.states[row : row + 1, 0].cpu(), layouts)
    frames = [env.render()[0]]
    for action in raw:
        env.step(action[None, None])
        frames.append(env.render()[0])
    return torch.stack(frames)[::frameskip]
