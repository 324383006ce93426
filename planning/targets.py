"""Starts and goals in a file: those of an earlier run, or one's own; docs/results_format.md describes the format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from envs.base import VectorEnv, simulate
from planning.episode_hashes import LAYOUT
from planning.episode_set import read_manifest
from planning.problem import Problem
from utils.reading.npz_file import read_npz
from utils.reading.opening import FileError

NEEDED = ("seeds", "states", "goal_states")  # arrays of a ``plan_targets.npz``; there may be more


def write_targets(
    path: str | Path,
    env: VectorEnv,
    states: Tensor,
    goal_states: Tensor,
    layouts: Mapping[str, Tensor] | None = None,
    seeds: Sequence[int] | None = None,
) -> Problem:
    """Write starts and goals of one's own as a file for ``goal_source=file goal_file_path=<path>``.

    Args:
        path: Of the file, which should end in ``.npz``.
        env: The environment, e.g. ``WallVectorEnv()``.
        states: (B, S) starts.
        goal_states: (B, S) goals.
        layouts: Name -> (B, ...); what is not named has the environment's default.
        seeds: B numbers >= 0 that the planner's randomness of each episode is drawn from; None means 0 to B - 1.

    Returns:
        The episodes as the file holds them.

    Raises:
        ValueError: If shapes do not fit, or a start or goal lies where none can be, e.g. in a wall.
    """
    count = len(states)
    problem = Problem(
        list(range(count)) if seeds is None else [int(seed) for seed in seeds],
        states.double(),
        goal_states.double(),
        env.default_layouts(count) | dict(layouts or {}),
    )
    lengths = {len(problem.seeds), len(goal_states), *(len(value) for value in problem.layouts.values())}
    shapes = f"{tuple(states.shape)} and {tuple(goal_states.shape)}"
    if lengths != {count} or not states.shape[1:] == goal_states.shape[1:] == (env.state_dim,):
        raise ValueError(
            f"env {env.name}: states and goal_states must both be (B, {env.state_dim}), with B seeds and layouts, got "
            f"{shapes}"
        )
    check_places(env, problem)
    problem.save(Path(path))
    return problem


def read_targets(path: Path, env: VectorEnv, count: int) -> Problem:
    """Read the first ``count`` episodes of a ``plan_targets.npz`` or an ``episodes.json``.

    Raises:
        ValueError: Naming the file.
    """
    arrays = _read_arrays(path, env.name)
    seeds, states, goals = (arrays.pop(name) for name in NEEDED)
    if len(seeds) < count or not states.shape[1:] == goals.shape[1:] == (env.state_dim,):
        raise ValueError(
            f"{path} holds {len(seeds)} episodes with states of shape {tuple(states.shape[1:])}; "
            f"{count} episodes (n_evals) with {env.state_dim} entries were asked for"
        )
    if seeds.ndim != 1 or not all(isinstance(seed, int) and seed >= 0 for seed in seeds.tolist()):
        raise ValueError(f"{path}: seeds must be one whole number >= 0 per episode")
    layouts = {name.removeprefix(LAYOUT): arrays[name][:count] for name in arrays if name.startswith(LAYOUT)}
    actions = arrays["actions"][:count] if "actions" in arrays else None
    if actions is not None and actions.shape[2:] != (env.env_action_dim,):
        found = tuple(arrays["actions"].shape)
        raise ValueError(f"{path}: actions must be ({len(seeds)}, K, {env.env_action_dim}), got {found}")
    starts, ends = (part[:count] if part.is_floating_point() else part[:count].double() for part in (states, goals))
    return Problem(seeds[:count].tolist(), starts, ends, env.default_layouts(count) | layouts, actions)


def check_places(env: VectorEnv, problem: Problem) -> None:
    """Refuse starts and goals that are no numbers, or lie in a wall or outside the room.

    A goal that known actions lead to is none of them, wherever it lies: an agent of PushT may leave the table.

    Raises:
        ValueError: Naming the episode and the coordinate.
    """
    for kind, states in (("start", problem.states), ("goal", problem.goal_states)):
        if not states.isfinite().all():
            row, entry = (~states.isfinite()).nonzero()[0].tolist()
            raise ValueError(f"episode {row}: entry {entry} of the {kind} is {states[row, entry]:g}, not a number")
    for kind, states in (("start", problem.states), ("goal", problem.goal_states)):
        found = {row: text for row, text in enumerate(env.misplaced(states, problem.layouts)) if text}
        if found and kind == "goal" and problem.actions is not None:
            played = simulate(env, problem.seeds, problem.states, problem.actions, problem.layouts).states[:, -1]
            reached = env.success(played, problem.goal_states).success
            found = {row: text for row, text in found.items() if not reached[row]}
        if found:
            row, text = next(iter(found.items()))
            more = f" ({len(found)} episodes have such a {kind})" if len(found) > 1 else ""
            raise ValueError(f"episode {row}: the {kind} at {text}{more}")


def _read_arrays(path: Path, env: str) -> dict[str, Tensor]:
    """Read a file of episodes, one row per episode in each array."""
    is_manifest = path.suffix == ".json"
    try:
        found = read_manifest(path, env) if is_manifest else read_npz(path)
        arrays = {name: torch.from_numpy(array) for name, array in found.items()}
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except FileError as error:
        if is_manifest:
            raise
        raise ValueError(f"{path} is not a plan_targets.npz of this project ({error})") from None
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{path} is not a plan_targets.npz of this project ({error})") from None
    missing = [name for name in NEEDED if name not in arrays]
    if missing or len({value.shape[:1] for value in arrays.values()}) != 1:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in arrays.items()) or "nothing"
        raise ValueError(
            f"{path} is not a plan_targets.npz of this project: expected {', '.join(NEEDED)} and "
            f"one row per episode in every array, found {shapes}"
        )
    return arrays
