"""How wrong the model is by step of the horizon, and how its latents lie along real paths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.latent_geometry import curvature, frame_pairs, rank_correlation
from planning.cost import LatentGoalCost
from planning.diagnosis.course import Course, carry_out
from planning.diagnosis.numbers import Mean, means
from planning.diagnosis.subject import Subject
from planning.gap import Visits
from planning.metrics import NO_ITERATION
from planning.planners.noise import EpisodeNoise
from planning.problem import Problem
from planning.simulated import Branches


@dataclass(frozen=True)
class Geometry:
    """How latents lie along real paths; each a mean over paths.

    Attributes:
        curvature: 1 - cos between successive steps.
        spearman_steps: Rank correlation of latent distance with the steps between two frames of a path.
        spearman_state: The same with the distance of their true states.
    """

    curvature: Mean
    spearman_steps: Mean
    spearman_state: Mean


def model_errors(subject: Subject, recorded: Visits | None) -> tuple[dict[str, list[Mean] | None], Geometry]:
    """Measure the model's error after 1 ... T blocks, on three kinds of actions, each imagined from one real frame.

    Args:
        subject: Its first plans are the kind "planned"; "random" are actions of the data's mean and deviation.
        recorded: Segments of the data set, the kind "dataset"; None where there are none.

    Returns:
        By kind, a mean for every step, None where there is nothing of the kind; and the geometry of the paths of the
        data set, or of random actions.
    """
    task, problem = subject.task, subject.task.problem.part(subject.rows)
    rows, planned = subject.plans(0, subject.rows)
    noise = EpisodeNoise.derive(task.seed, problem.seeds, NO_ITERATION, task.observer.device)
    random = noise.randn(*planned.shape[1:])
    paths, random_errors = _imagined_and_true(subject, problem, random)
    found: dict[str, list[Mean] | None] = {"dataset": None, "random": random_errors}
    found["planned"] = _imagined_and_true(subject, task.problem.part(rows), planned)[1]
    if recorded is not None:
        segments = Problem(recorded.seeds, recorded.states, recorded.states, recorded.layouts)
        paths, found["dataset"] = _imagined_and_true(subject, segments, subject.blocks(recorded.actions))
    return found, _geometry(subject, paths)


def _imagined_and_true(subject: Subject, problem: Problem, blocks: Tensor) -> tuple[Course, list[Mean]]:
    """Carry ``blocks`` (b, T, A) out from the starts of a problem, and measure how far off their imagination was."""
    task, env = subject.task, subject.simulator
    course = carry_out(Branches(env, problem, torch.zeros(len(problem), 0, env.env_action_dim)), task.observer, blocks)
    present, model = course.latent[:, :1], task.speed.prepare(task.observer.model)
    rollout = subject.controller.planner.rollout
    cost = LatentGoalCost(
        model, subject.distance, present, blocks[:, :0], present, rollout, task.memory_budget_gb
    )  # only to imagine
    errors = subject.frame_distances(cost.imagine(blocks)[:, 1:], course.latent[:, 1:])
    return course, [means(errors[:, step]) for step in range(errors.shape[1])]


def _geometry(subject: Subject, paths: Course) -> Geometry:
    frames = paths.latent.visual.flatten(2)
    if frames.shape[1] < 3:
        return Geometry(*[means(torch.zeros(0))] * 3)
    first, second = frame_pairs(frames)
    latent = subject.frame_distances(paths.latent[:, first], paths.latent[:, second]).cpu()
    shape = latent.shape
    ends = (paths.states[:, pair.cpu()].flatten(0, 1) for pair in (first, second))
    true = subject.task.env.success(*ends).state_dist.cpu().view(shape)
    return Geometry(
        means(torch.stack([curvature(path[None, :, None]) for path in frames])),
        means(rank_correlation(latent, (second - first).cpu().expand_as(latent))),
        means(rank_correlation(latent, true)),
    )
