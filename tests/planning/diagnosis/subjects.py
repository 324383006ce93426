"""Finished evaluations of ``PointEnv`` whose reasons to fail are known, because their models and goals are made so."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from models.interfaces import Encoder, Predictor
from models.tokens import FeatureConcat
from models.world_model import WorldModel
from planning.diagnosis.subject import Subject
from planning.episode_record import EpisodeRecord
from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.planners.base import Planner
from planning.planners.gd import GDPlanner
from planning.problem import Problem
from planning.replay import Replay
from planning.task import PlanningTask
from tests.builders import POINT_NORMALIZER, PointEnv, point_model, point_task

STARTS = torch.tensor([[0.0, 0.0], [1.0, -2.0], [-2.0, 1.0], [2.0, 2.0], [-1.0, 0.0], [0.5, 1.5]]).double()


def gd(opt_steps: int = 120, lr: float = 0.1, horizon: int = 3, **more: Any) -> GDPlanner:
    settings = {"action_noise": 0.0, "sample_type": "zero", "lr_schedule": "cosine"} | more
    return GDPlanner(horizon=horizon, opt_steps=opt_steps, lr=lr, **settings)


def task_of(model: WorldModel, ways: Tensor, alpha: float = 1.0, quantiles: Tensor | None = None) -> PlanningTask:
    """Episodes that begin at ``STARTS`` and have goals ``ways`` (6, 2) farther on."""
    env, count = PointEnv(), len(STARTS)
    problem = Problem([10 * n + 1 for n in range(count)], STARTS, STARTS + ways, env.default_layouts(count))
    observer = Observer(model, POINT_NORMALIZER, action_quantiles=quantiles)
    goal = observer.present(env, env.reset(problem.seeds, problem.goal_states, problem.layouts))
    task, _ = point_task()
    return replace(task, env=env, observer=observer, problem=problem, goal=goal, objective=GoalDistance("last", alpha))


def finished(task: PlanningTask, planner: Planner | MPCController) -> Subject:
    """Run an evaluation to its end, and look at all of its episodes."""
    controller = MPCController.of(planner)
    episodes = task.start()
    controller.run(task, episodes)
    ends = [blocks * task.frameskip for blocks in controller.executed(controller.max_iter)]
    replay = Replay.of(task.env, task.problem, episodes.played, ends)
    record = EpisodeRecord.of(episodes, replay, task.frameskip, controller.planner.horizon)
    return Subject(task, controller, record, torch.arange(len(task.problem)), PointEnv())


class Bent(Predictor):
    """The point's dynamics with the effect of the actions multiplied by ``factors``, one for x and one for y."""

    activations_per_token = 8

    def __init__(self, factors: tuple[float, float]) -> None:
        super().__init__()
        self.true = point_model().predictor
        self.register_buffer("factors", torch.tensor(factors))

    def forward(self, tokens: Tensor) -> Tensor:
        change = self.true(tokens)[..., :4] - tokens[..., :4]
        return torch.cat([tokens[..., :4] + change * self.factors.repeat(2), tokens[..., 4:]], -1)


def bent_model(x: float = 1.0, y: float = 1.0) -> WorldModel:
    """A model that is wrong in a known way: the second component of actions is ignored with y=0, negated with y=-1."""
    model = point_model()
    model.predictor = Bent((x, y))
    return model.eval()


class Wave(Encoder):
    """Encodes a state by waves of its coordinates, so that states a period apart look the same."""

    observes = "state"

    def __init__(self, period: float) -> None:
        super().__init__()
        self.period = period

    def forward(self, states: Tensor) -> Tensor:
        return waves(states, self.period)[..., None, :]


def waves(z: Tensor, period: float) -> Tensor:
    """(..., 4) of z-scored states (..., 2)."""
    angle = 2 * torch.pi * z * POINT_NORMALIZER.state_std / period
    return torch.cat([angle.sin(), angle.cos()], -1)


class Waving(Predictor):
    """The exact dynamics in latents of waves: the state itself is kept in the proprio part."""

    activations_per_token = 8

    def __init__(self, period: float) -> None:
        super().__init__()
        self.period, self.true = period, point_model().predictor

    def forward(self, tokens: Tensor) -> Tensor:
        state, actions = tokens[..., 4:6], tokens[..., 6:]
        new = self.true(torch.cat([state, state, actions], -1))[..., :2]
        return torch.cat([waves(new, self.period), new, actions], -1)


def waving_model(period: float) -> WorldModel:
    """A perfect model whose latents have false valleys, ``period`` apart along x and y."""
    layout = FeatureConcat(num_patches=1, visual_dim=4, proprio_dim=2, action_dim=4)
    return WorldModel(Wave(period), nn.Identity(), nn.Identity(), Waving(period), None, layout, 1).eval()
