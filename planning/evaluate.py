"""The numbers an evaluation ends with."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from envs.base import VectorEnv
from envs.process_vector import EnvWorkerError
from planning.episodes import Episodes
from planning.goals import Problem
from planning.observer import Observer
from utils.statistics import wilson_interval

log = logging.getLogger(__name__)


def final_metrics(env: VectorEnv, observer: Observer, problem: Problem, episodes: Episodes) -> dict[str, Any]:
    """Metrics of finished episodes; rates lie in [0, 1], and every mean is over episodes of a number per episode.

    Args:
        env: its episodes are replaced. observer: encodes. problem: starts and goals. episodes: as they ended.

    Returns:
        ``success_rate`` with its 95 % Wilson interval, ``mean_state_dist`` (the environment's units),
        ``mean_visual_dist`` (root mean square pixel difference, 0..255; None where nothing can be drawn),
        ``mean_proprio_dist`` (raw units),
        ``mean_div_visual_emb`` / ``mean_div_proprio_emb`` (imagined against true latent after the last execution),
        planning seconds, simulation seconds (rendering and encoding included), model evaluations, how many of them were
        differentiated, ``objective`` (what the plans minimised, in the order of the iterations), and ``solved_at``.
    """
    solved = episodes.solved
    low, high = wilson_interval(int(solved.sum()), len(solved))
    outcome = env.success(episodes.states, problem.goal_states)
    proprio = env.proprio(episodes.states) - env.proprio(problem.goal_states)
    planning = sum(record["planning_seconds"] for record in episodes.records)
    return {
        "success_rate": solved.double().mean().item(),
        "success_rate_low": low,
        "success_rate_high": high,
        "n_evals": len(solved),
        "mean_state_dist": outcome.state_dist.double().mean().item(),
        "mean_visual_dist": _pixel_distance(env, problem, episodes.states, observer.frames_per_chunk),
        "mean_proprio_dist": proprio.double().norm(dim=1).mean().item(),
        "mean_div_visual_emb": episodes.divergence[:, 0].mean().item(),
        "mean_div_proprio_emb": episodes.divergence[:, 1].mean().item(),
        "planning_seconds": planning,
        "planning_seconds_per_episode": planning / len(solved),
        "planning_seconds_per_iteration": planning / max(1, len(episodes.records)),
        "simulation_seconds": sum(record["simulation_seconds"] for record in episodes.records),
        "model_evaluations_per_episode": episodes.evaluations.double().mean().item(),
        "gradient_evaluations_per_episode": sum(
            record["gradient_evaluations"] * record["planned_episodes"] for record in episodes.records
        )
        / len(solved),
        "objective": "; then ".join(dict.fromkeys(record.get("objective", "?") for record in episodes.records)),
        "iterations": episodes.iteration,
        "solved_at": episodes.solved_at.tolist(),
    }


def _pixel_distance(env: VectorEnv, problem: Problem, states: Tensor, chunk: int) -> float | None:
    """The mean of ``_pixel_distances``; None where nothing can be drawn, which a model that sees no images can bear."""
    try:
        return _pixel_distances(env, problem, states, chunk).mean().item()
    except (EnvWorkerError, ValueError) as error:
        log.warning("mean_visual_dist is left out, the images for it cannot be drawn: %s", error)
        return None


def _pixel_distances(env: VectorEnv, problem: Problem, states: Tensor, chunk: int) -> Tensor:
    """Root mean square difference (B,) of the images of ``states`` and of the goals, a few at a time."""
    distances = []
    for rows in torch.arange(len(problem)).split(chunk):
        seeds = [problem.seeds[row] for row in rows.tolist()]
        layouts = {name: value[rows] for name, value in problem.layouts.items()}
        images = []
        for part in (states, problem.goal_states):
            env.reset(seeds, part[rows], layouts)
            images.append(env.render().float())  # float before the difference: uint8 would wrap around
        distances.append((images[0] - images[1]).flatten(1).square().mean(1).sqrt())
    return torch.cat(distances)
