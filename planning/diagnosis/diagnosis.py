"""The diagnosis of one finished evaluation, from its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from planning.diagnosis.better import Better, better_plans
from planning.diagnosis.candidates import gradient_norms, rank_correlations
from planning.diagnosis.model_errors import model_errors
from planning.diagnosis.numbers import known
from planning.diagnosis.plane import plane
from planning.diagnosis.promises import solving_iterations
from planning.diagnosis.reach import Reach, reach_of
from planning.diagnosis.rules import REASONS
from planning.diagnosis.sorting import sorted_failures
from planning.diagnosis.subject import Subject
from planning.gap import Visits

SCHEMA = 1
RANKED = 8  # episodes whose searches are repeated
PLANES = 3


@dataclass(frozen=True)
class Others:
    """What other evaluations did in the same B episodes, by their names.

    Attributes:
        executed: (B, n, env_action_dim) raw actions; they need not have been successful.
        plans: (B, m, env_action_dim) raw actions of their first plans; NaN where there are none.
    """

    executed: Mapping[str, Tensor]
    plans: Mapping[str, Tensor]


NO_OTHERS = Others({}, {})


def chosen_episodes(solved: Tensor, count: int) -> Tensor:
    """Choose at most ``count`` of B episodes, failed ones first, but up to a third of solved ones.

    Args:
        solved: (B,) bool.
        count: How many, at least 3.

    Returns:
        Their numbers, ascending.
    """
    good, bad = solved.nonzero().flatten(), (~solved).nonzero().flatten()
    num_good = min(len(good), max(count // 3, count - len(bad)))
    return torch.cat([bad[: count - num_good], good[:num_good]]).sort().values


def diagnosed(
    subject: Subject, recorded: Visits | None = None, others: Others = NO_OTHERS, planes: int = PLANES
) -> dict[str, Any]:
    """Measure everything; docs/why.md describes each entry.

    Args:
        subject: A finished evaluation, and which of its episodes are looked at.
        recorded: Segments of the data set, as long as a plan; None where there are none.
        others: What other evaluations did in the same episodes.
        planes: For how many episodes the objective is drawn in a plane.
    """
    solved_at, rows = solving_iterations(subject), subject.rows
    failed = torch.tensor([row for row in rows.tolist() if row not in solved_at], dtype=torch.long)
    with tqdm(total=6 + len(subject.iterations) + planes, unit=" part") as bar:

        def begins(name: str, is_first: bool = False) -> None:
            bar.update(0 if is_first else 1)
            bar.set_description(name)

        begins("errors of the model", is_first=True)
        errors, geometry = model_errors(subject, recorded)
        begins("candidates of the search")
        exploitation = _exploitation(subject)
        begins("gradients")
        gradients = gradient_norms(subject, rows)
        begins("ways to the goals")
        reach = reach_of(subject, failed, others.executed)
        begins("better plans")
        better = better_plans(subject, rows, reach.ways, others.plans)
        begins("promises of the plans")
        reasons, limits = sorted_failures(subject, failed, reach, better, bar.update)
        begins("planes")
        drawn = [_plane(subject, row, reach, better) for row in _interesting(reasons, rows, planes)]
        bar.update(bar.total - bar.n)
    counts = {name: sum(why == name for why, _ in reasons.values()) for name in REASONS}
    return {
        "schema": SCHEMA,
        **dict.fromkeys(("model", "planner", "goals", "seed")),
        "episodes": rows.tolist(),
        "error_by_step": {kind: found and [asdict(each) for each in found] for kind, found in errors.items()},
        "exploitation": exploitation,
        "gradient_norm": [asdict(each) for each in gradients],
        **asdict(geometry),
        "plane": drawn,
        "thresholds": {name: known(value) for name, value in asdict(limits).items()},
        "failures": counts,
        "sorted": [{"episode": row, "why": why, "evidence": text} for row, (why, text) in reasons.items()],
    }


def _exploitation(subject: Subject) -> dict[str, Any]:
    """Costs of the first plans as imagined and as they come true, and how searches rank their candidates."""
    rows, plan = subject.plans(0, subject.rows)
    with torch.no_grad():
        imagined, true = (subject.request(0, rows, simulated).cost(plan[:, None])[:, 0] for simulated in (False, True))
    ranked = rows[torch.linspace(0, len(rows) - 1, min(RANKED, len(rows))).round().long()]
    return {
        "imagined": [known(value) for value in imagined.tolist()],
        "true": [known(value) for value in true.tolist()],
        "rank_correlation": {moment: asdict(each) for moment, each in rank_correlations(subject, ranked).items()},
    }


def _interesting(reasons: Mapping[int, tuple[str, str]], rows: Tensor, count: int) -> list[int]:
    """Choose episodes to draw: one failed for each reason, then other failed ones, then solved ones."""
    first = {why: row for row, (why, _) in reversed(list(reasons.items()))}.values()
    return list(dict.fromkeys([*sorted(first), *reasons, *rows.tolist()]))[:count]


def _plane(subject: Subject, row: int, reach: Reach, better: Better) -> dict[str, Any]:
    place = subject.rows.tolist().index(row)
    plans = {"this plan": better.plan[place]}
    plans.setdefault(better.source[place], better.best[place])
    if row in reach.ways:
        way = reach.ways[row]
        plans.setdefault(way.source, subject.fitted(way.actions[None], better.plan.shape[1])[0])
    return plane(subject, row, plans)
