"""Failed episodes with their facts, sorted by the rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from planning.diagnosis.better import Better
from planning.diagnosis.numbers import known
from planning.diagnosis.promises import Promise, distances_inside, promises_of
from planning.diagnosis.reach import Reach
from planning.diagnosis.rules import Facts, Thresholds, reason
from planning.diagnosis.subject import Subject


def sorted_failures(
    subject: Subject, failed: Tensor, reach: Reach, better: Better, after_each: Callable[[], object]
) -> tuple[dict[int, tuple[str, str]], Thresholds]:
    """Collect the facts of failed episodes, and sort them.

    Args:
        subject: What is diagnosed.
        failed: (n,) numbers of the failed ones among the episodes looked at.
        reach: Ways to their goals.
        better: Plans in the place of the first ones, of all episodes looked at.
        after_each: Called after each iteration whose plans were carried out.

    Returns:
        Reason and evidence by episode, and the thresholds that decided.
    """
    rows = subject.rows.tolist()
    places = {row: place for place, row in enumerate(rows)}
    promises = promises_of(subject, failed, after_each)
    gains = [(better.cost - better.best_cost)[places[row]].item() for row in rows if row not in promises]
    limits = Thresholds.of(distances_inside(subject, reach.ways), [gain for gain in gains if known(gain) is not None])
    costs = _other_costs(subject, failed, reach, better, [places[row] for row in failed.tolist()])
    found = {}
    for row in failed.tolist():
        facts = _facts(row, reach, better, places[row], promises[row], limits, costs[row])
        found[row] = reason(facts, limits)
    return found, limits


def _other_costs(
    subject: Subject, failed: Tensor, reach: Reach, better: Better, places: list[int]
) -> dict[int, dict[str, float]]:
    """Costs of episodes ``failed`` (n,) that are left for ``Facts``, by its names.

    Where no way is known, the plan stands in its place.
    """
    if not len(failed):
        return {}
    plans, best = better.plan[places], better.best[places]
    ways = [
        subject.fitted(reach.ways[row].actions[None], plans.shape[1])[0] if row in reach.ways else plan
        for row, plan in zip(failed.tolist(), plans, strict=True)
    ]
    candidates = torch.stack([plans, best, torch.stack(ways)], 1)
    with torch.no_grad():
        imagined = subject.request(0, failed).cost(candidates[:, 2:])
        true = subject.request(0, failed, simulated=True).cost(candidates)
    names = ("way_cost", "true_cost", "best_true_cost", "way_true_cost")
    table = torch.cat([imagined, true], 1).tolist()
    return {row: dict(zip(names, costs, strict=True)) for row, costs in zip(failed.tolist(), table, strict=True)}


def _facts(
    row: int,
    reach: Reach,
    better: Better,
    place: int,
    promises: list[Promise],
    limits: Thresholds,
    costs: Mapping[str, float],
) -> Facts:
    hopeful = [promise for promise in promises if promise.imagined <= limits.near]
    nothing = Promise(torch.inf, torch.inf, torch.inf, False)
    most_hopeful = min(promises, key=lambda promise: promise.imagined, default=nothing)
    way = reach.ways.get(row)
    return Facts(
        way=None if way is None else way.source,
        tried=reach.tried,
        nearest=reach.nearest.get(row, torch.nan),
        plans=len(promises),
        hopeful=len(hopeful),
        came_true=sum(promise.arrives for promise in hopeful),
        imagined=most_hopeful.imagined,
        true=most_hopeful.true,
        away=most_hopeful.away,
        cost=better.cost[place].item(),
        best_cost=better.best_cost[place].item(),
        best=better.source[place],
        **costs,
    )
