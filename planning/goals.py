"""Start states and goals of an evaluation, from one of four sources."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.trajectories import Trajectories
from datasets.units.normalizer import Normalizer
from envs.base import VectorEnv, simulate
from envs.episode_seeds import episode_generator, redrawn_seed
from envs.factors import Factors
from envs.vary import vary
from planning.problem import Problem
from planning.targets import check_places, read_targets

log = logging.getLogger(__name__)

MOST_DRAWS = 200  # of one episode, until one is found that does not begin solved


@dataclass(frozen=True)
class GoalRequest:
    """Everything that a goal source needs to know.

    Attributes:
        env: Simulator that plays goals.
        seeds: One per episode.
        goal_H: Blocks between start and goal, >= 1.
        frameskip: Raw steps per block.
        validation: Opens the validation trajectories, only if they are needed.
        normalizer: For random actions.
        path: Of ``goal_source=file``.
        unsolved_starts_only: Whether episodes that begin solved are drawn again; those of a file never are.
        vary: Factors by which the world of every episode differs.
    """

    env: VectorEnv
    seeds: list[int]
    goal_H: int  # noqa: N815  (the config key)
    frameskip: int
    validation: Callable[[], tuple[Trajectories, Sequence[int]]]
    normalizer: Normalizer
    path: Path | None = None
    unsolved_starts_only: bool = False
    vary: Factors = field(default_factory=dict)


def from_random_states(request: GoalRequest) -> Problem:
    """Draw independent start and goal states (PointMaze, Wall protocol)."""
    states, goals = request.env.sample_start_goal(request.seeds)
    return Problem(request.seeds, states, goals, request.env.default_layouts(len(request.seeds)))


def from_random_actions(request: GoalRequest) -> Problem:
    """Draw starts, and take the states that random z-scored normal actions lead to."""
    starts, _ = request.env.sample_start_goal(request.seeds)
    steps = request.goal_H * request.frameskip
    drawn = [episode_generator(seed).randn(steps, request.env.env_action_dim) for seed in request.seeds]
    actions = request.normalizer.actions_to_raw(torch.from_numpy(np.stack(drawn)).float())
    return _played(request, starts, actions, request.env.default_layouts(len(request.seeds)))


def from_dataset(request: GoalRequest) -> Problem:
    """Replay segments of validation trajectories, ``goal_H`` blocks long, in the simulator (PushT protocol)."""
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
    """Read the episodes of an earlier run, or of one's own, from a ``plan_targets.npz`` or an ``episodes.json``."""
    if request.path is None:
        raise ValueError("goal_source=file needs goal_file_path=<plan_targets.npz or episodes.json of an earlier run>")
    try:
        problem = read_targets(request.path, request.env, len(request.seeds))
    except ValueError as error:
        raise ValueError(f"goal_file_path: {error}") from None
    try:
        check_places(request.env, problem)
    except ValueError as error:
        raise ValueError(f"goal_file_path: {request.path}: {error}") from None
    return problem


GOAL_SOURCES: dict[str, Callable[[GoalRequest], Problem]] = {
    "dset": from_dataset,
    "random_state": from_random_states,
    "random_action": from_random_actions,
    "file": from_file,
}


def make_problem(source: str, request: GoalRequest) -> Problem:
    """Make the problem that ``goal_source`` names.

    Raises:
        ValueError: If there is no such source, ``goal_H`` is below 1, or nothing but episodes that begin solved can
            be drawn where these are not wanted.
    """
    if source not in GOAL_SOURCES:
        raise ValueError(f"goal_source must be one of {', '.join(GOAL_SOURCES)}, got {source!r}")
    if request.goal_H < 1:
        raise ValueError(f"goal_H must be at least 1, got {request.goal_H}")
    if request.path is not None and source != "file":
        raise ValueError(f"goal_file_path={request.path} has no effect with goal_source={source}; use goal_source=file")
    problem = GOAL_SOURCES[source](request)
    redraws = source != "file" and request.unsolved_starts_only
    if redraws:
        problem = _without_solved(source, request, problem)
    return _varied(request, problem, redraws) if request.vary else problem


def _varied(request: GoalRequest, problem: Problem, redraws: bool) -> Problem:
    """Let the world of every episode differ; goals, and starts unless they vary, stay where they are.

    Known actions are kept, though other dynamics may lead them elsewhere; to another start they do not belong.

    Raises:
        ValueError: If an episode that must not begin solved does in ``MOST_DRAWS`` draws.
    """

    def drawn(part: Problem, attempt: int) -> Problem:
        states = (part.states, part.goal_states)
        starts, layouts = vary(request.vary, part.seeds, states, part.layouts, attempt)
        is_elsewhere = any("start" in factor.changes for factor in request.vary.values())
        return replace(part, states=starts, layouts=layouts, actions=None if is_elsewhere else part.actions)

    found = drawn(problem, 0)
    for attempt in range(1, MOST_DRAWS):
        rows = _begins_solved(request.env, found).nonzero().flatten() if redraws else torch.empty(0)
        if not len(rows):
            return found
        found = found.with_rows(rows, drawn(problem.part(rows), attempt))
    raise ValueError(f"vary: in {MOST_DRAWS} draws episode {rows[0]} always begins inside its success region")


def _begins_solved(env: VectorEnv, problem: Problem) -> Tensor:
    """Whether each episode begins inside its success region: (B,) bool, on the CPU; replaces the env's episodes."""
    starts = env.reset(problem.seeds, problem.states, problem.layouts)  # where they really start: a reset may move them
    return env.success(starts, problem.goal_states).success.cpu()


def _without_solved(source: str, request: GoalRequest, problem: Problem) -> Problem:
    """Redraw episodes that begin solved until none does; the others stay as they were drawn.

    What an episode becomes depends on its seed alone, not on the other episodes.

    Raises:
        ValueError: If an episode begins solved in ``MOST_DRAWS`` draws.
    """
    rows = _begins_solved(request.env, problem).nonzero().flatten()
    if len(rows):
        log.info("%d of %d episodes began solved and are drawn again", len(rows), len(problem))
    for attempt in range(1, MOST_DRAWS):
        if not len(rows):
            return problem
        seeds = [redrawn_seed(problem.seeds[row], attempt) for row in rows.tolist()]
        drawn = GOAL_SOURCES[source](replace(request, seeds=seeds))
        problem = problem.with_rows(rows, drawn)
        rows = rows[_begins_solved(request.env, drawn)]
    raise ValueError(
        f"goal_source={source}, goal_H={request.goal_H}: in {MOST_DRAWS} draws episode {rows[0]} always begins inside "
        "its success region; raise goal_H, or set unsolved_starts_only=false"
    )


def _played(request: GoalRequest, starts: Tensor, actions: Tensor, layouts: dict[str, Tensor]) -> Problem:
    """Play the actions: the goal is where the simulator itself ends, not where a file says it should."""
    visited = simulate(request.env, request.seeds, starts, actions, layouts).states
    # what the reset was given, not what it made of it: PushT's takes a step, and planning will reset once more
    return Problem(request.seeds, starts, visited[:, -1], layouts, actions)
