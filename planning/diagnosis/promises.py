"""What every plan of an episode promised, and what came of it when it was carried out to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from planning.diagnosis.course import carry_out
from planning.diagnosis.reach import Way
from planning.diagnosis.subject import Subject


@dataclass(frozen=True)
class Promise:
    """The moment at which a plan imagines to be nearest to the goal, among those at which an arrival would count.

    Attributes:
        imagined: Latent distance to the goal as imagined.
        true: The same when the plan is carried out.
        away: Distance to the goal then, as the environment judges it.
        arrives: Whether the plan, carried out, is inside the success region at any such moment.
    """

    imagined: float
    true: float
    away: float
    arrives: bool


def promises_of(subject: Subject, rows: Tensor, after_each: Callable[[], object]) -> dict[int, list[Promise]]:
    """Imagine all plans of episodes ``rows`` (n,) again, and carry them out.

    Args:
        subject: What is diagnosed.
        rows: Episodes.
        after_each: Called after each iteration.

    Returns:
        By episode, one for each of its plans that can arrive within the budget.
    """
    found: dict[int, list[Promise]] = {row: [] for row in rows.tolist()}
    for iteration in subject.iterations:
        planned, blocks = subject.plans(iteration, rows)
        judged = subject.judged(iteration, blocks.shape[1])
        if len(planned) and judged:
            request = subject.request(iteration, planned)
            imagined = subject.frame_distances(request.cost.imagine(blocks), request.goal)[:, judged].cpu()
            course = carry_out(subject.branches(iteration, planned), subject.task.observer, blocks)
            true = subject.frame_distances(course.latent, request.goal)[:, judged].cpu()
            away, arrives = course.away[:, judged], course.inside[:, judged].any(1)
            for place, row in enumerate(planned.tolist()):
                at = int(imagined[place].argmin())
                came = [part[place, at].item() for part in (imagined, true, away)]
                found[row].append(Promise(came[0], came[1], came[2], bool(arrives[place])))
        after_each()
    return found


def distances_inside(subject: Subject, ways: Mapping[int, Way]) -> list[float]:
    """Latent distances to the goal of states inside the success region: where episodes were solved, and on ways."""
    record, found = subject.record, []
    for row, iteration in solving_iterations(subject).items():
        found.append(float(record.true_distance[row, iteration]))
    if ways:
        rows = torch.tensor(sorted(ways))
        raw = torch.stack([ways[row].actions for row in sorted(ways)])
        course = carry_out(subject.branches(0, rows), subject.task.observer, subject.blocks(raw))
        goal = subject.task.goal[rows.to(subject.task.observer.device)]
        judged = subject.judged(0, subject.num_blocks)
        near = subject.frame_distances(course.latent, goal)[:, judged].cpu()
        found += near[course.inside[:, judged]].tolist()
    return found


def solving_iterations(subject: Subject) -> dict[int, int]:
    """Number, from 0, of the iteration that solved each solved episode."""
    inside: Sequence[Sequence[bool]] = subject.record.inside[:, subject.record.iteration_ends[1:]].tolist()
    return {row: moments.index(True) for row, moments in enumerate(inside) if True in moments}
