"""The numbers an evaluation ends with."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from envs.base import VectorEnv
from envs.process_vector import EnvWorkerError
from planning.arithmetic import EpisodeTflop
from planning.episodes import Episodes
from planning.planners.noise import EpisodeNoise
from planning.problem import Problem
from planning.replay import Replay
from planning.task import PlanningTask
from utils.machine import peak_memory
from utils.statistics import wilson_interval

log = logging.getLogger(__name__)

NO_ITERATION = 2**32 - 1  # number of a random stream that no plan draws from


def final_metrics(task: PlanningTask, episodes: Episodes, replay: Replay, tflop: EpisodeTflop) -> dict[str, Any]:
    """Metrics of finished episodes; docs/results_format.md describes every one.

    Rates lie in [0, 1], and every mean is over episodes of a number per episode.

    Args:
        task: Starts, goals, and the environment, whose episodes are replaced.
        episodes: As they ended.
        replay: Their course.
        tflop: What they took.
    """
    env, problem, ends = task.env, task.problem, replay.ends
    steps = [ends[iteration] for iteration in episodes.solved_at.tolist()]
    last = episodes.played.shape[1]
    moments = {"at_solve": replay.at([at or last for at in steps]), "at_end": replay.at([last] * len(problem))}
    starts = replay.inside[:, 0]
    idle = solved_by_doing_nothing(env, problem, ends)
    drawn = solved_by(env, problem, ends, _random_actions(task, ends[-1]))
    hashes = problem.hashes()
    return {
        **_rate("success_rate", episodes.solved),
        **_rate("final_rate", replay.inside[:, -1]),
        **_rate("solved_at_start_rate", starts),
        **_rate("do_nothing_rate", idle),
        "do_nothing_steps": ends[-1],
        **_rate("random_rate", drawn),
        "n_evals": len(problem),
        "distinct_episodes": len(set(hashes)),
        **_distances(task, moments),
        "mean_div_visual_emb": episodes.divergence[:, 0].mean().item(),
        "mean_div_proprio_emb": episodes.divergence[:, 1].mean().item(),
        **_work(episodes),
        **_arithmetic(tflop),
        "peak_memory_gb": _peak_memory_gb(task.observer.device),
        "objective": "; then ".join(dict.fromkeys(record.get("objective", "?") for record in episodes.records)),
        "episode_set_hash": problem.set_hash(),
        "episode_hash": hashes,
        "episode_seed": problem.seeds,
        "solved_at": episodes.solved_at.tolist(),
        "solved_at_step": steps,
        "final": replay.inside[:, -1].tolist(),
        "solved_at_start": starts.tolist(),
        "solved_by_doing_nothing": idle.tolist(),
        "solved_by_random_actions": drawn.tolist(),
        **_expert(env, problem, ends),
        "model_evaluations": episodes.evaluations.tolist(),
        "gradient_evaluations": gradients_of(episodes).tolist(),
        "tflop": tflop.total.tolist(),
    }


def solved_by_doing_nothing(env: VectorEnv, problem: Problem, ends: Sequence[int]) -> Tensor:
    """Whether zero raw actions solve each episode: see ``solved_by``."""
    return solved_by(env, problem, ends, torch.zeros(len(problem), 0, env.env_action_dim))


def solved_by(env: VectorEnv, problem: Problem, ends: Sequence[int], actions: Tensor) -> Tensor:
    """Whether given actions solve each episode, being inside the region at the end of an iteration.

    Args:
        env: The simulator, whose episodes are replaced; nothing is drawn.
        problem: The episodes.
        ends: Raw steps executed after 0, 1, ... iterations.
        actions: (B, K, env_action_dim) raw actions; after their end nothing is done.

    Returns:
        (B,) bool, on the CPU.
    """
    env.reset(problem.seeds, problem.states, problem.layouts)
    nothing = actions.new_zeros(len(problem), max(0, ends[-1] - actions.shape[1]), env.env_action_dim)
    executed = torch.cat([actions, nothing], 1)
    solved = torch.zeros(len(problem), dtype=torch.bool)
    for before, after in itertools.pairwise(ends):
        solved |= env.success(env.step(executed[:, before:after])[:, -1], problem.goal_states).success.cpu()
        if solved.all():
            break
    return solved


def _random_actions(task: PlanningTask, num_steps: int) -> Tensor:
    """Draw raw actions (B, num_steps, env_action_dim) with the data's mean and deviation."""
    noise = EpisodeNoise.derive(task.seed, task.problem.seeds, NO_ITERATION, "cpu")
    return task.observer.normalizer.actions_to_raw(noise.randn(num_steps, task.env.env_action_dim))


def _expert(env: VectorEnv, problem: Problem, ends: Sequence[int]) -> dict[str, Any]:
    """Say what the actions solve that are known to lead to the goals, where there are any."""
    if problem.actions is None:
        return {}
    solved = solved_by(env, problem, ends, problem.actions)
    return {**_rate("expert_rate", solved), "solved_by_expert": solved.tolist()}


def _rate(name: str, outcomes: Tensor) -> dict[str, float]:
    """Give a share of the episodes with its 95 % Wilson interval."""
    low, high = wilson_interval(int(outcomes.sum()), len(outcomes))
    return {name: outcomes.double().mean().item(), f"{name}_low": low, f"{name}_high": high}


def _work(episodes: Episodes) -> dict[str, float]:
    """Sum up what planning and simulating took."""
    num, records = len(episodes.solved), episodes.records
    planning = sum(record["planning_seconds"] for record in records)
    simulating = sum(record["simulation_seconds"] for record in records)
    return {
        "planning_seconds": planning,
        "planning_seconds_per_episode": planning / num,
        "planning_seconds_per_iteration": planning / max(1, len(records)),
        "simulation_seconds": simulating,
        "simulation_seconds_per_episode": simulating / num,
        "model_evaluations_per_episode": episodes.evaluations.double().mean().item(),
        "gradient_evaluations_per_episode": gradients_of(episodes).double().mean().item(),
        "iterations": episodes.iteration,
    }


def gradients_of(episodes: Episodes) -> Tensor:
    """Rollouts (B,) that were differentiated while planning for each episode."""
    found = torch.zeros(len(episodes.solved), dtype=torch.long)
    for entry in episodes.history:
        found[entry["rows"]] += entry["gradients"]
    return found


def _arithmetic(tflop: EpisodeTflop) -> dict[str, float]:
    """Average the floating-point operations of an episode: all, and each part."""
    parts = {"": tflop.total, "_encoder": tflop.encoder, "_forward": tflop.forward, "_backward": tflop.backward}
    return {f"tflop{name}_per_episode": value.mean().item() for name, value in parts.items()}


def _peak_memory_gb(device: torch.device) -> float:
    """The most memory that this process has held: a GPU's for tensors if it uses one, else the machine's."""
    held = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
    return held / 1e9


def _distances(task: PlanningTask, ends: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Average distances to the goals at several moments, of states (B, S) and their distances (B,); list the latter."""
    env, problem = task.env, task.problem
    found: dict[str, Any] = {}
    pixels = _pixel_means(env, problem, [states for states, _ in ends.values()], task.observer.frames_per_chunk)
    for (moment, (states, state)), visual in zip(ends.items(), pixels, strict=True):
        proprio = (env.proprio(states) - env.proprio(problem.goal_states)).double().norm(dim=1)
        found[f"mean_state_dist_{moment}"] = state.mean().item()
        found[f"mean_visual_dist_{moment}"] = visual
        found[f"mean_proprio_dist_{moment}"] = proprio.mean().item()
        found[f"state_dist_{moment}"] = state.tolist()
    names = {f"mean_{name}_dist": found[f"mean_{name}_dist_at_end"] for name in ("state", "visual", "proprio")}
    return names | found


def _pixel_means(env: VectorEnv, problem: Problem, ends: Sequence[Tensor], chunk: int) -> list[float | None]:
    """Average ``_pixel_distances``; None where nothing can be drawn, which a model that sees no images can bear."""
    try:
        return [each.mean().item() for each in _pixel_distances(env, problem, ends, chunk)]
    except (EnvWorkerError, ValueError) as error:
        log.warning("mean_visual_dist is left out, the images for it cannot be drawn: %s", error)
        return [None] * len(ends)


def _pixel_distances(env: VectorEnv, problem: Problem, ends: Sequence[Tensor], chunk: int) -> list[Tensor]:
    """Root mean square differences (B,) of the images of each of ``ends`` and of the goals, a few at a time."""
    distances: list[list[Tensor]] = [[] for _ in ends]
    for rows in torch.arange(len(problem)).split(chunk):
        some = problem.part(rows)
        images = []
        for part in (problem.goal_states, *ends):
            env.reset(some.seeds, part[rows], some.layouts)
            images.append(env.render().float())  # float before the difference: uint8 would wrap around
        for found, image in zip(distances, images[1:], strict=True):
            found.append((image - images[0]).flatten(1).square().mean(1).sqrt())
    return [torch.cat(found) for found in distances]
