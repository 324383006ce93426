"""Every option of the group ``planner`` keeps the contract of ``planning.planners.base.Planner``."""

from __future__ import annotations

import functools

import pytest
from hydra.utils import get_class, instantiate

from planning.mpc import MPCController
from planning.planners.base import Planner
from tests.builders import PointProposal, point_task
from tests.contracts.planner_contract import CHECKS


@pytest.fixture(scope="module")
def settings(planner_option, composing):
    """The ``planner`` of a config."""
    return composing(f"planner={planner_option}", "ckpt_path=unused", name="plan_wall")["planner"]


@pytest.fixture(scope="module")
def make(settings):
    """A function that makes the planner; of a closed loop, the one inside it."""
    return functools.partial(instantiate, settings.get("sub_planner", settings))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_planner_keeps_its_contract(check, make):
    check(make)


def test_it_is_carried_out_in_an_environment(settings):
    """Open loop once and to its end, in a closed loop block by block, for no longer than it is meant to."""
    assert issubclass(get_class(settings["_target_"]), Planner | MPCController), "it is a planner, or a loop around one"
    inner: dict = {key: {**settings[key], "opt_steps": 2} for key in settings if key == "sub_planner"}
    if "adapt" in settings:
        inner["adapt"] = {"lr": 0.1, "parameters": "all"}
    task, env = point_task(gains=(0.0, 0.0))  # nothing helps
    loop = MPCController.of(instantiate(settings, **(inner or {"opt_steps": 2})))
    task.observer.model.proposal = PointProposal(loop.planner.horizon, task.frameskip)
    loop.max_iter = min(loop.max_iter or 2, 2)
    episodes = task.start()
    loop.run(task, episodes, lambda _: None)
    assert episodes.iteration == loop.max_iter
    blocks = loop.executed(loop.max_iter)[-1]
    assert episodes.played.shape == (2, blocks * task.frameskip, 2) and episodes.played.isfinite().all()
    assert sum(actions.shape[1] for actions in env.executed) == blocks * task.frameskip
