"""Ways to goals: known ones, and those that only the simulator shows."""

from dataclasses import replace

import torch

from datasets.units.normalizer import Normalizer
from envs.wall.vector_env import WallVectorEnv
from planning.diagnosis.reach import RECORDED, explore, reach_of
from planning.diagnosis.subject import Subject
from planning.metrics import solved_by
from planning.mpc import MPCController
from planning.observer import Observer
from planning.problem import Problem
from tests.builders import PointEnv, point_model
from tests.planning.diagnosis.subjects import STARTS, finished, gd, task_of


def test_exploration_finds_the_door_in_a_wall():
    """The straight way, and every step that comes nearer, end at the wall."""
    env = WallVectorEnv()
    starts, goals = (
        torch.tensor([[20.0, 50.0], [22.0, 10.0]]).double(),
        torch.tensor([[46.0, 50.0], [45.0, 12.0]]).double(),
    )
    problem = Problem([1, 2], starts, goals, env.default_layouts(2))
    observer = Observer(point_model(), Normalizer.identity(2, 2, 2))
    task = replace(task_of(point_model(), torch.ones(6, 2)), env=env, problem=problem, observer=observer)
    subject = Subject(task, MPCController(gd(), max_iter=12), None, torch.arange(2), env)
    found, nearest, tried = explore(subject, torch.arange(2))
    assert sorted(found) == [0, 1] and max(nearest.values()) < 4.5 and tried > 0
    assert solved_by(env, problem, subject.ends, torch.stack([found[0], found[1]])).all()


def test_known_actions_come_before_exploration_and_only_within_the_budget():
    subject = finished(task_of(point_model(), torch.full((6, 2), 2.0)), gd(opt_steps=1))
    quick, slow = (torch.full((6, steps, 2), 2.0 / steps) for steps in (4, 40))
    for actions, source in ((quick, RECORDED), (slow, "actions found in the simulator")):
        problem = Problem([1] * 6, STARTS, STARTS + 2, PointEnv().default_layouts(6), actions)
        known = replace(subject, task=replace(subject.task, problem=problem))
        reach = reach_of(known, torch.tensor([1, 3]), {})
        assert {row: way.source for row, way in reach.ways.items()} == {1: source, 3: source}
