"""Replanning must not be slower than carrying the first plan out, on a point world whose dynamics the model knows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.observer import Observer
from tests.builders import POINT_NORMALIZER, REPOSITORY, PointEnv, point_task
from tests.training.tiny import composed

OPTIONS = sorted((REPOSITORY / "conf" / "planner").glob("mpc_*.yaml"))
OPTIONS = [path for path in OPTIONS if path.stem not in ("mpc_random", "mpc_policy")]  # which search nothing
NEVER = 99
BLOCK = 2.0  # farthest that a block moves the point along an axis: two raw steps of 1


def default_of(option: str, *overrides: str) -> dict[str, Any]:
    """What the command line makes of ``planner=<option>``, with at most 30 steps and actions within their range."""
    config = composed(f"planner={option}", *overrides, name="plan_wall", run_dir="r", ckpt_path="c")
    own = config["planner"]["sub_planner"]
    own |= {"clip_actions": True, "opt_steps": min(own["opt_steps"], 30)}
    return config


def arrivals(controller: MPCController, objective: GoalDistance) -> Tensor:
    """After which block (B,) the point first lies inside the success region."""
    task, env = point_task(gains=(1.0,) * 8)
    reach = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    task = replace(
        task, observer=Observer(task.observer.model, POINT_NORMALIZER, action_quantiles=reach), objective=objective
    )
    episodes = task.start()
    controller.run(task, episodes, lambda _: None)
    goals = task.problem.goal_states
    inside = torch.stack([env.success(states, goals).success for states in env.ends[1:]], 1)
    return torch.where(inside.any(1), inside.int().argmax(1) + 1, NEVER)


def first_plan(config: dict[str, Any]) -> Tensor:
    """Arrivals when the loop's first plan is carried out to its end."""
    loop = config["planner"]
    planner = instantiate(loop["sub_planner"])
    objective = instantiate(config["objective"]).at(0, planner.horizon, loop["n_taken_actions"])
    return arrivals(MPCController(planner, 1, planner.horizon), objective)


def replanned(config: dict[str, Any]) -> Tensor:
    controller = instantiate(config["planner"] | {"max_iter": 10})
    return arrivals(controller, instantiate(config["objective"]))


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_replanning_is_never_later_than_the_first_plan(path: Path):
    config = default_of(path.stem)
    carried_out, again = first_plan(config), replanned(config)
    assert (again <= carried_out).all(), (again, carried_out)
    states, goals = PointEnv().sample_start_goal([10 * n + 1 for n in range(8)])
    least = (((goals - states).abs().amax(1) - 0.5) / BLOCK).ceil()  # no plan is faster
    assert (again >= least).all() and (again < NEVER).all()


def test_the_last_frame_alone_is_later():
    """Or the test above would show nothing."""
    config = default_of("mpc_gd_lbfgs", "objective=last")
    assert (replanned(config) > first_plan(config)).any()
