"""What an evaluation is about: start states and goals, from one of four sources, saved for use again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.normalizer import Normalizer
from datasets.trajectories import Trajectories
from envs.base import VectorEnv, simulate
from envs.episode_seeds import episode_generator
from utils.files import atomic_path
from utils.reading.npz_file import read_npz

NEEDED = ("seeds", "states", "goal_states")  # arrays of a ``plan_targets.npz``; there may be more


@dataclass(frozen=True)
class Problem:
    """Independent episodes to solve.

    Attributes:
        seeds: B environment seeds. states: (B, S) starts, as a reset is given them. goal_states: (B, S).
        layouts: name -> (B, ...), what differs between episodes besides their state.
        actions: (B, K, env_action_dim) raw actions known to lead from start to goal; None where there are none.
    """

    seeds: list[int]
    states: Tensor
    goal_states: Tensor
    layouts: dict[str, Tensor]
    actions: Tensor | None = None

    def __len__(self) -> int:
        return len(self.seeds)

    def save(self, path: Path) -> None:
        """Write an ``.npz`` without pickles."""
        arrays = {"seeds": np.array(self.seeds), "states": self.states, "goal_states": self.goal_states}
        arrays |= {f"layout/{name}": value for name, value in self.layouts.items()}
        if self.actions is not None:
            arrays["actions"] = self.actions
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            plain = {name: np.asarray(v.cpu() if isinstance(v, Tensor) else v) for name, v in arrays.items()}
            np.savez(file, **plain)  # type: ignore[arg-type]


@dataclass(frozen=True)
class GoalRequest:
    """What a goal source needs to know.

    Attributes:
        env: simulator that plays goals. seeds: one per episode. goal_H: blocks between start and goal, >= 1.
        frameskip: raw steps per block. validation: opens the validation trajectories, only if they are needed.
        normalizer: for random actions. path: of ``goal_source=file``.
    """

    env: VectorEnv
    seeds: list[int]
    goal_H: int  # noqa: N815  (the config key)
    frameskip: int
    validation: Callable[[], tuple[Trajectories, Sequence[int]]]
    normalizer: Normalizer
    path: Path | None = None


def from_random_states(request: GoalRequest) -> Problem:
    """Independent random start and goal states (PointMaze, Wall protocol)."""
    states, goals = request.env.sample_start_goal(request.seeds)
    return Problem(request.seeds, states, goals, request.env.default_layouts(len(request.seeds)))


def from_random_actions(request: GoalRequest) -> Problem:
    """A random start, and the state that random z-scored normal actions lead to."""
    starts, _ = request.env.sample_start_goal(request.seeds)
    steps = request.goal_H * request.frameskip
    drawn = [episode_generator(seed).randn(steps, request.env.env_action_dim) for seed in request.seeds]
    actions = request.normalizer.actions_to_raw(torch.from_numpy(np.stack(drawn)).float())
    return _played(request, starts, actions, request.env.default_layouts(len(request.seeds)))


def from_dataset(request: GoalRequest) -> Problem:
    """Segments of validation trajectories, ``goal_H`` blocks long, replayed in the simulator (PushT protocol)."""
    trajectories, numbers = request.validation()
    steps = request.goal_H * request.frameskip
    long_enough = [i for i in numbers if int(trajectories.lengths[i]) >= steps]
    if not long_enough:
        raise ValueError(
            f"goal_source=dset needs validation trajectories of goal_H * frameskip = {steps} steps, and none of "
            f"the {len(numbers)} is that long; lower goal_H"
        )
    starts, actions, layouts = [], [], []
    for seed in request.seeds:
        draw = episode_generator(seed)
        number = long_enough[draw.randint(len(long_enough))]
        offset = draw.randint(int(trajectories.lengths[number]) - steps + 1)
        starts.append(trajectories.states[number][offset])
        actions.append(trajectories.actions[number][offset : offset + steps])
        layouts.append(trajectories.layout(number))
    merged = {name: torch.stack([layout[name] for layout in layouts]) for name in layouts[0]}
    return _played(request, torch.stack(starts), torch.stack(actions), merged)


def from_file(request: GoalRequest) -> Problem:
    """The problems that an earlier run left behind as ``plan_targets.npz``."""
    path = request.path
    if path is None:
        raise ValueError("goal_source=file needs goal_file_path=<plan_targets.npz of an earlier run>")
    arrays = _read_arrays(path)
    seeds, states, goals = (arrays.pop(name) for name in NEEDED)
    wanted = len(request.seeds)
    if len(seeds) < wanted or not states.shape[1:] == goals.shape[1:] == (request.env.state_dim,):
        raise ValueError(
            f"goal_file_path: {path} holds {len(seeds)} episodes with states of shape {tuple(states.shape[1:])}; "
            f"{wanted} episodes (n_evals) with {request.env.state_dim} entries were asked for"
        )
    layouts = {name.removeprefix("layout/"): arrays[name][:wanted] for name in arrays if name.startswith("layout/")}
    actions = arrays["actions"][:wanted] if "actions" in arrays else None
    return Problem(seeds[:wanted].tolist(), states[:wanted], goals[:wanted], layouts, actions)


def _read_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of a ``plan_targets.npz``, one row per episode each."""
    try:
        arrays = {name: torch.from_numpy(array) for name, array in read_npz(path).items()}
    except FileNotFoundError:
        raise ValueError(f"goal_file_path: there is no file {path}") from None
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"goal_file_path: {path} is not a plan_targets.npz of this project ({error})") from None
    missing = [name for name in NEEDED if name not in arrays]
    if missing or len({value.shape[:1] for value in arrays.values()}) != 1:
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in arrays.items()) or "nothing"
        raise ValueError(
            f"goal_file_path: {path} is not a plan_targets.npz of this project: expected {', '.join(NEEDED)} and "
            f"one row per episode in every array, found {shapes}"
        )
    return arrays


GOAL_SOURCES: dict[str, Callable[[GoalRequest], Problem]] = {
    "dset": from_dataset,
    "random_state": from_random_states,
    "random_action": from_random_actions,
    "file": from_file,
}


def make_problem(source: str, request: GoalRequest) -> Problem:
    """The problem that ``goal_source`` names.

    Raises:
        ValueError: If there is no such source, or ``goal_H`` is below 1.
    """
    if source not in GOAL_SOURCES:
        raise ValueError(f"goal_source must be one of {', '.join(GOAL_SOURCES)}, got {source!r}")
    if request.goal_H < 1:
        raise ValueError(f"goal_H must be at least 1, got {request.goal_H}")
    if request.path is not None and source != "file":
        raise ValueError(f"goal_file_path={request.path} has no effect with goal_source={source}; use goal_source=file")
    return GOAL_SOURCES[source](request)


def _played(request: GoalRequest, starts: Tensor, actions: Tensor, layouts: dict[str, Tensor]) -> Problem:
    """The goal is where the simulator itself ends, not where a file says it should."""
    visited = simulate(request.env, request.seeds, starts, actions, layouts).states
    # what the reset was given, not what it made of it: PushT's takes a step, and planning will reset once more
    return Problem(request.seeds, starts, visited[:, -1], layouts, actions)
