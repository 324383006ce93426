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
    starts, names = [plan], ["this plan"]
    if ways:
        known = [ways[row].actions if row in ways else None for row in rows.tolist()]
        length = max(len(actions) for actions in known if actions is not None)
        nothing = torch.zeros(length, subject.task.env.env_action_dim)
        raw = torch.stack([nothing if actions is None else actions for actions in known])
        has_way = torch.tensor([actions is not None for actions in known], device=plan.device)
        starts.append(torch.where(has_way[:, None, None], subject.fitted(raw, plan.shape[1]), plan))
        names.append(WAY)
    for name, actions in others.items():
        fitted = subject.fitted(actions[rows], plan.shape[1])
        starts.append(torch.where(fitted.isfinite().all(2).all(1)[:, None, None], fitted, plan))
        names.append(f"the plan of {name}")
    candidates = torch.stack(starts, 1)
    longer = _searched(subject, rows, candidates)
    candidates, names = torch.cat([candidates, longer[:, None]], 1), [*names, LONGER]
    with torch.no_grad():
        costs = request.cost(candidates)
    best_cost, best = costs.nan_to_num(torch.inf, torch.inf).min(1)
    chosen = candidates[torch.arange(len(rows), device=best.device), best]
    sources = [names[place] for place in best.tolist()]
    sources = [ways[row].source if name == WAY else name for row, name in zip(rows.tolist(), sources, strict=True)]
    return Better(plan, costs[:, 0].cpu(), chosen, best_cost.cpu(), sources)


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
