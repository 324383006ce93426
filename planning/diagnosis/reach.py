"""Whether anything is known to reach an episode's goal within its budget, and a search for it in the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from planning.diagnosis.subject import Subject
from planning.metrics import solved_by
from planning.planners.noise import EpisodeNoise

EXPLORATION = 2**32 - 2  # number of a random stream that no plan draws from
KEPT = 48  # action sequences that go on: half of them nearest to the goal, half far from each other
CHILDREN = 6  # ways in which each goes on
FEWEST_KEPT = 8
MOST_STEPS = 2_000_000  # raw steps that an exploration of all its episodes may simulate
LARGEST = 2.0  # of the deviations of the data, by which actions are spread

RECORDED, EXPLORED = "the known actions", "actions found in the simulator"


@dataclass(frozen=True)
class Way:
    """Raw actions that solve an episode within its budget.

    Attributes:
        source: Where they come from.
        actions: (K, env_action_dim), K the budget.
    """

    source: str
    actions: Tensor


@dataclass(frozen=True)
class Reach:
    """What is known of the way to some goals.

    Attributes:
        ways: By episode, where there is one.
        nearest: By explored episode, how near to the goal the best action sequence came.
        tried: How many were simulated in an explored episode.
    """

    ways: dict[int, Way]
    nearest: dict[int, float]
    tried: int


def reach_of(subject: Subject, rows: Tensor, others: Mapping[str, Tensor]) -> Reach:
    """Look for ways to the goals of episodes ``rows`` (n,).

    Args:
        subject: What is diagnosed.
        rows: Episodes.
        others: Raw actions (B, n, env_action_dim) of all episodes that others executed, by the name of the others.
    """
    task, budget = subject.task, subject.ends[-1]
    candidates = {f"the actions of {name}": actions for name, actions in others.items()}
    if task.problem.actions is not None:
        candidates = {RECORDED: task.problem.actions} | candidates
    ways: dict[int, Way] = {}
    problem = task.problem.part(rows)
    for name, actions in candidates.items():
        tried = _cut(actions[rows], budget)
        for place in solved_by(task.env, problem, subject.ends, tried).nonzero().flatten().tolist():
            ways.setdefault(int(rows[place]), Way(name, tried[place]))
    left = torch.tensor([row for row in rows.tolist() if row not in ways], dtype=torch.long)
    found, nearest, tried_each = explore(subject, left) if len(left) else ({}, {}, 0)
    return Reach(ways | {row: Way(EXPLORED, actions) for row, actions in found.items()}, nearest, tried_each)


def _cut(actions: Tensor, budget: int) -> Tensor:
    """Cut actions (n, k, a) to so many raw steps; what is missing does nothing."""
    nothing = actions.new_zeros(len(actions), max(0, budget - actions.shape[1]), actions.shape[2])
    return torch.cat([actions[:, :budget], nothing], 1)


def explore(subject: Subject, rows: Tensor) -> tuple[dict[int, Tensor], dict[int, float], int]:
    """Search for ways in the simulator by the true distance alone; neither model nor latents take part.

    Action sequences grow block by block. Those that go on are the nearest to the goal, and as many whose ends lie far
    from each other, which finds the door in a wall. Every sequence is simulated from the start, so that what is found
    can be carried out.

    Returns:
        Raw actions by solved episode, the smallest distance by episode, and how many sequences each episode tried.
    """
    task, env, problem = subject.task, subject.task.env, subject.task.problem.part(rows)
    steps = [block * task.frameskip for block in range(1, subject.num_blocks + 1)]
    affordable = MOST_STEPS // (len(rows) * CHILDREN * sum(steps))
    kept = max(FEWEST_KEPT, min(KEPT, affordable))
    count = kept * CHILDREN
    noise = EpisodeNoise.derive(task.seed, problem.seeds, EXPLORATION, "cpu")
    among = problem.part(torch.arange(len(rows)).repeat_interleave(count))
    prefix = torch.zeros(len(rows), count, 0, env.env_action_dim)
    found: dict[int, Tensor] = {}
    nearest = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    for step in steps:
        drawn = subject.clipped(_drawn(task.frameskip, env.env_action_dim, noise, count))
        prefix = torch.cat([prefix, task.observer.normalizer.actions_to_raw(drawn)], 2)
        env.reset(among.seeds, among.states, among.layouts)
        ends = env.step(prefix.flatten(0, 1))[:, -1]
        outcome = env.success(ends, among.goal_states)
        away = outcome.state_dist.cpu().double().view(len(rows), count)
        if step in subject.ends:
            nearest = torch.minimum(nearest, away.min(1).values)
            arrived = outcome.success.cpu().view(len(rows), count)
            for place in arrived.any(1).nonzero().flatten().tolist():
                first = int(arrived[place].int().argmax())
                found.setdefault(int(rows[place]), _cut(prefix[place, first : first + 1], steps[-1])[0])
        if len(found) == len(rows):
            break
        chosen = _chosen(task.observer.normalizer.states_to_z(ends.cpu()).view(len(rows), count, -1), away, kept)
        prefix = prefix.gather(1, chosen[:, :, None, None].expand(-1, -1, *prefix.shape[2:]))
        prefix = prefix.repeat_interleave(CHILDREN, 1)
    distances = {int(row): float(each) for row, each in zip(rows, nearest, strict=True)}
    return found, distances, count * len(steps)


def _drawn(frameskip: int, env_action_dim: int, noise: EpisodeNoise, count: int) -> Tensor:
    """Draw z-scored actions (n, count, frameskip, a) of one block: one that is held, and what varies around it."""
    size = noise.uniform(0, LARGEST, count, 1, 1)
    held, varied = noise.randn(count, 1, env_action_dim), noise.randn(count, frameskip, env_action_dim)
    return size * held + 0.25 * size * varied


def _chosen(ends: Tensor, away: Tensor, kept: int) -> Tensor:
    """Places (n, kept) of the ends (n, N, S) that are nearest to the goal, and of others far from all chosen before."""
    near = away.topk(kept // 2, 1, largest=False).indices
    spread = torch.cdist(ends, ends.gather(1, near[:, :1, None].expand(-1, -1, ends.shape[2])))[:, :, 0]
    chosen = [near]
    for _ in range(kept - kept // 2):
        farthest = spread.argmax(1, keepdim=True)
        chosen.append(farthest)
        there = ends.gather(1, farthest[:, :, None].expand(-1, -1, ends.shape[2]))
        spread = torch.minimum(spread, torch.cdist(ends, there)[:, :, 0])
    return torch.cat(chosen, 1)
