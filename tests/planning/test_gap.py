import pytest
import torch

from planning.gap import Visits, one_step_error, planner_visits
from planning.observer import Observer
from planning.planners.gd import GDPlanner
from tests.builders import POINT_NORMALIZER, PointEnv, numbers, point_model, point_task


def visits(gain: float, frames: int = 4) -> Visits:
    return Visits([1, 2], numbers(2, 2).double(), numbers(2, 2 * frames, 2), {"gain": torch.full((2, 1), gain)})


@pytest.mark.parametrize("num_hist", [1, 3])
def test_the_true_dynamics_have_no_error(num_hist):
    observer = Observer(point_model(num_hist), POINT_NORMALIZER)
    errors = one_step_error(PointEnv(), observer, visits(gain=1.0), frameskip=2)
    assert max(errors["visual_mse"] + errors["proprio_mse"]) < 1e-10


def test_a_wrong_gain_costs_what_it_should():
    """The model moves by the whole action, the point by nothing."""
    played = visits(gain=0.0)
    errors = one_step_error(PointEnv(), Observer(point_model(), POINT_NORMALIZER), played, frameskip=2)
    moved = played.actions.unflatten(1, (-1, 2)).sum(2) / POINT_NORMALIZER.state_std  # (2, 4, 2) in z units
    expected = moved.square().mean((1, 2)).tolist()
    assert errors["visual_mse"] == pytest.approx(expected, rel=1e-4)
    assert errors["proprio_mse"] == pytest.approx(expected, rel=1e-4)


def test_what_a_planner_visits_starts_at_the_problem_and_ends_nearer_to_the_goal():
    task, env = point_task(gains=(1.0, 1.0, 1.0))
    planner = GDPlanner(horizon=3, opt_steps=80, lr=0.2, action_noise=0.0, sample_type="zero")
    found = planner_visits(task, planner)
    assert torch.equal(found.states, task.problem.states)
    assert found.actions.shape == (3, 3 * 2, 2)
    assert found.seeds == task.problem.seeds
    env.reset(found.seeds, found.states, found.layouts)
    ends = env.step(found.actions)[:, -1]
    before, after = ((x - task.problem.goal_states).norm(dim=1) for x in (found.states, ends))
    assert (after < 0.1 * before).all()
