"""What ``plan.py`` asks of its planner, for the cases that time a part of the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from benchmarks.plain.planning import PlainProblem
from benchmarks.setting import Setting
from models.flops import ModelFlops
from models.world_model import WorldModel
from planning.mpc import MPCController
from planning.planners.plan import Budget
from planning.planners.search import Search
from planning.prepare_evaluation import prepare_evaluation
from planning.request import PlanRequest
from planning.task import PlanningTask


@dataclass(frozen=True)
class Asked:
    """What ``plan.py`` asks of its planner in the first iteration, with all that the config says.

    Attributes:
        task: The evaluation's task.
        controller: The evaluation's controller.
        request: The request that it makes.
    """

    task: PlanningTask
    controller: MPCController
    request: PlanRequest

    def decide(self) -> object:
        """Begin the episodes anew, and plan."""
        begun = self.task.start()
        return self.controller.request(self.task, begun, begun.active).plan()

    @property
    def planner(self) -> Any:
        """The planner that is asked; which class it is says the case."""
        return self.request.planner

    @property
    def model(self) -> WorldModel:
        """The model as it was loaded."""
        return self.task.observer.model

    @cached_property
    def flops(self) -> ModelFlops:
        """What the model's parts take."""
        return ModelFlops.of(self.model)

    @property
    def context(self) -> int:
        """Frames that the predictor sees at most."""
        return self.planner.rollout.num_context or self.model.num_hist

    def search(self) -> Search:
        """A new account of evaluations."""
        request, planner = self.request, self.planner
        return Search(request.cost, Budget(), planner.eval_every, request.space, planner.clip_actions)

    def plain_problem(self) -> PlainProblem:
        """Give the starts as images, and the same goals."""
        env, problem, observer = self.task.env, self.task.problem, self.task.observer
        states = env.reset(problem.seeds, problem.states, problem.layouts)
        visual = env.render()[:, None].to(observer.device)
        return PlainProblem(visual, observer.proprio(env, states[:, None]), self.task.goal, self.context)


@contextlib.contextmanager
def asked(setting: Setting, planner: str, episodes: int, *more: str) -> Iterator[Asked]:
    """Prepare an evaluation as ``plan.py`` does, up to where its controller asks the planner."""
    setting.checkpoint()
    with setting.autocast():
        evaluation = prepare_evaluation(setting.plan_config(planner, episodes, *more), setting.device)
        controller, task = evaluation.controller, evaluation.task
        try:
            begun = task.start()
            yield Asked(task, controller, controller.request(task, begun, begun.active))
        finally:
            task.close()
