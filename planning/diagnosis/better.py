"""Better plans under the same model: from where else is known, and by a longer search from all of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from planning.diagnosis.reach import Way
from planning.diagnosis.subject import Subject
from planning.planners.gd import GDPlanner
from planning.planners.noise import EpisodeNoise

SEARCHED = 2**32 - 3  # number of a random stream that no plan draws from
STEPS, LR, RANDOM_STARTS = 100, 0.1, 2  # of the longer search
LONGER, WAY = "a longer search", "a way to the goal"


@dataclass(frozen=True)
class Better:
    """The first plans of n episodes, and the best that is known in their place under the same model.

    Attributes:
        plan: (n, T, A) z-scored blocks.
        cost: (n,) the objective of the plan, as imagined.
        best: (n, T, A) of all plans known, that of the lowest cost.
        best_cost: (n,) its cost.
        source: Where each comes from.
    """

    plan: Tensor
    cost: Tensor
    best: Tensor
    best_cost: Tensor
    source: list[str]


def better_plans(subject: Subject, rows: Tensor, ways: Mapping[int, Way], others: Mapping[str, Tensor]) -> Better:
    """Compare the first plans of ``rows`` (n,) with ways to their goals, with others' plans and with a longer search.

    The longer search descends from all of these at once, and from random actions, by Adam through the model.

    Args:
        subject: What is diagnosed; an iteration has planned for all of ``rows``.
        rows: Episodes.
        ways: Ways to goals, by episode.
        others: Raw first plans (B, n, env_action_dim) of others for all episodes, by the name of the others.
    """
    request, plan = subject.request(0, rows), subject.plans(0, rows)[1]
    starts = {"this plan": plan}
    if ways:
        starts[WAY] = subject.fitted(_side_by_side(ways, rows), plan.shape[1])
    starts |= {f"the plan of {name}": subject.fitted(raw[rows], plan.shape[1]) for name, raw in others.items()}
    names, candidates = [*starts, LONGER], torch.stack(list(starts.values()), 1)
    is_known = candidates.isfinite().flatten(2).all(2)
    candidates = torch.where(is_known[:, :, None, None], candidates, plan[:, None])
    longer = _searched(subject, rows, candidates)
    candidates = torch.cat([candidates, longer[:, None]], 1)
    with torch.no_grad():
        costs = request.cost(candidates)
    is_known = torch.cat([is_known, is_known[:, :1]], 1) & costs.isfinite()
    best_cost, best = costs.masked_fill(~is_known, torch.inf).min(1)
    sources = [
        ways[row].source if names[place] == WAY else names[place]
        for row, place in zip(rows.tolist(), best.tolist(), strict=True)
    ]
    chosen = candidates[torch.arange(len(rows), device=best.device), best]
    return Better(plan, costs[:, 0].cpu(), chosen, best_cost.cpu(), sources)


def _side_by_side(ways: Mapping[int, Way], rows: Tensor) -> Tensor:
    """Raw actions (n, K, env_action_dim) of the ways of ``rows`` (n,); NaN where there is none."""
    none = torch.full_like(next(iter(ways.values())).actions, torch.nan)
    return torch.stack([ways[row].actions if row in ways else none for row in rows.tolist()])


def _searched(subject: Subject, rows: Tensor, starts: Tensor) -> Tensor:
    """The best (n, T, A) that descends from ``starts`` (n, N, T, A), or from some random actions beside them."""
    request, task = subject.request(0, rows), subject.task
    planner = GDPlanner(
        horizon=starts.shape[2],
        opt_steps=STEPS,
        lr=LR,
        action_noise=0.0,
        num_starts=starts.shape[1] + RANDOM_STARTS,
        lr_schedule="cosine",
        clip_actions=subject.controller.planner.clip_actions,
    )
    seeds = [task.problem.seeds[row] for row in rows.tolist()]
    noise = EpisodeNoise.derive(task.seed, seeds, SEARCHED, task.observer.device)
    space = replace(request.space, alternatives=starts[:, 1:])
    return planner.optimize(request.cost, starts[:, 0], noise, space).actions
