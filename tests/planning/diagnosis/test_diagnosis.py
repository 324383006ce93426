"""Diagnoses whose answers are known by construction."""

import json
from dataclasses import replace

import pytest
import torch

from planning.diagnosis.account import account
from planning.diagnosis.better import better_plans
from planning.diagnosis.candidates import MOMENTS, Visited, gradient_norms, rank_correlations
from planning.diagnosis.diagnosis import Others, chosen_episodes, diagnosed
from planning.diagnosis.model_errors import model_errors
from planning.diagnosis.promises import promises_of
from planning.diagnosis.reach import Way
from planning.gap import Visits
from planning.mpc import MPCController
from planning.planners.cem import CEMPlanner
from planning.planners.searchless import RandomPlanner
from tests.builders import POINT_NORMALIZER, point_model
from tests.planning.diagnosis.subjects import STARTS, bent_model, finished, gd, task_of, waving_model

WAYS = torch.tensor([[1.5, 1.0], [-1.5, 1.2], [1.0, -1.5], [-1.0, -1.2], [0.8, 1.4], [1.3, -0.9]]).double()
FAR = torch.tensor([[3.0, 0.0]]).double().expand(6, 2)


def reasons(subject, **more):
    found = diagnosed(subject, planes=0, **more)
    return {each["why"] for each in found["sorted"]}, found


def test_a_model_that_negates_a_component_is_found_wrong():
    why, found = reasons(finished(task_of(bent_model(y=-1.0), WAYS), gd()))
    assert why == {"model"} and found["failures"]["model"] == len(found["sorted"]) == 6
    assert "carried out it is" in found["sorted"][0]["evidence"]


def test_a_search_cut_short_is_found_unfinished():
    why, found = reasons(finished(task_of(point_model(), WAYS), gd(opt_steps=1)))
    assert why == {"search"} and found["failures"]["search"] == 6
    assert "(a longer search; a difference above" in found["sorted"][0]["evidence"]


def test_latents_that_repeat_are_found_to_mislead():
    """What looks like the goal lies every two units; the plans stop two of them away."""
    why, found = reasons(finished(task_of(waving_model(period=2.0), FAR, alpha=0.0), gd(opt_steps=300, lr=0.05)))
    assert why == {"distance"}
    assert "yet 4 away in truth" in found["sorted"][0]["evidence"]


def test_goals_beyond_the_largest_actions_are_out_of_reach():
    slow = torch.tensor([[-0.1, -0.1], [0.1, 0.1]])
    subject = finished(task_of(point_model(), FAR, quantiles=slow), gd(clip_actions=True))
    why, found = reasons(subject)
    assert why == {"out of reach"}
    assert "came to 2.4" in found["sorted"][0]["evidence"], "six steps of 0.1 on a way of 3"


def test_another_evaluation_shows_a_way_and_a_better_plan():
    slow = torch.tensor([[-0.1, -0.1], [0.1, 0.1]])
    subject = finished(task_of(point_model(), FAR, quantiles=slow), gd(clip_actions=True))
    actions = torch.tensor([0.5, 0.0]).expand(6, 6, 2)
    why, found = reasons(subject, others=Others({"fast": actions}, {"fast": actions}))
    assert why == {"search"} and "(the actions of fast;" in found["sorted"][0]["evidence"]


def test_a_better_plan_comes_from_a_way_only_where_there_is_one():
    subject = finished(task_of(point_model(), WAYS), gd(opt_steps=1))
    ways = {4: Way("a friend", (WAYS[4] / 6).float().expand(6, 2))}
    found = better_plans(subject, torch.arange(6), ways, {"other": torch.full((6, 4, 2), torch.nan)})
    assert found.source[4] == "a friend" and {*found.source[:4], found.source[5]} == {"a longer search"}
    assert (found.best_cost < 1e-3).all() and (found.cost > 0.05).all()


def test_a_perfect_model_promises_what_comes_true():
    planner = CEMPlanner(horizon=3, opt_steps=5, num_samples=40, topk=8)
    subject = finished(task_of(point_model(), WAYS), planner)
    _, found = reasons(subject)
    costs = found["exploitation"]
    assert costs["imagined"] == pytest.approx(costs["true"], abs=1e-5)
    for moment in ("start", "middle", "end"):
        assert costs["rank_correlation"][moment]["mean"] == pytest.approx(1, abs=1e-3)
    assert all(each["mean"] < 1e-8 for kind in ("planned", "random") for each in found["error_by_step"][kind])
    assert found["error_by_step"]["dataset"] is None
    assert found["spearman_state"]["mean"] > 0.8


def test_a_model_that_sees_the_wrong_way_ranks_the_wrong_way():
    task = task_of(bent_model(x=-1.0, y=-1.0), 0.01 * WAYS)
    found = rank_correlations(finished(task, RandomPlanner(horizon=3)), torch.arange(6))
    assert found["start"].mean is None, "one candidate has no rank"
    planner = CEMPlanner(horizon=3, opt_steps=1, num_samples=24, topk=8)
    far = finished(task_of(bent_model(x=-1.0, y=-1.0), 100 * WAYS), planner)
    assert rank_correlations(far, torch.arange(6))["start"].mean == pytest.approx(-1, abs=0.02)


def test_moments_of_a_search_share_no_candidate():
    """Twenty steps of one candidate each, fewer in all than a moment would take."""
    visited = Visited(lambda actions, problems=None: actions.flatten(2).sum(2), 1)
    for step in range(20):
        visited(torch.full((1, 1, 1, 1), float(step)))
    found = [sorted(visited.at(moment)[1].flatten().tolist()) for moment in MOMENTS]
    assert found == [[0, 1, 2, 3, 4, 5], [7, 8, 9, 10, 11, 12], [14, 15, 16, 17, 18, 19]]


def test_errors_grow_as_computed_by_hand():
    """The model holds still along y, so it is off by what the actions move there."""
    subject = finished(task_of(bent_model(y=0.0), WAYS), gd())
    found, _ = model_errors(subject, None)
    moved = torch.from_numpy(subject.record.plans)[:, 0, :, 1].cumsum(1)[:, 1::2] / POINT_NORMALIZER.state_std[1]
    expected = moved.square().mean(0)  # half of a part's entries, and two parts
    assert [each.mean for each in found["planned"]] == pytest.approx(expected.tolist(), rel=1e-3)
    assert found["random"][0].mean < found["random"][-1].mean


def test_straight_paths_have_no_curvature_and_the_order_of_their_states():
    subject = finished(task_of(point_model(), WAYS), gd(opt_steps=2))
    once = torch.tensor([1.0, 1.0, 2.0, 2.0, 4.0, 4.0])[:, None]  # so that no two distances are equal
    actions = once * torch.tensor([[0.1, 0.2], [-0.3, 0.1], [0.2, 0.0]])[:, None]
    recorded = Visits([1, 2, 3], STARTS[:3], actions, {"gain": torch.ones(3, 1)})
    errors, geometry = model_errors(subject, recorded)
    assert geometry.curvature.mean == pytest.approx(0, abs=1e-5)
    ranks = torch.tensor([[2, 2, 2, 4.5, 4.5, 6], [1, 2, 4, 3, 5, 6]])  # 1, 2, 3 steps; distances 1 2 4, 3 6, 7
    assert geometry.spearman_steps.mean == pytest.approx(torch.corrcoef(ranks)[0, 1].item(), abs=1e-5)
    assert geometry.spearman_state.mean == pytest.approx(1, abs=1e-5)
    assert len(errors["dataset"]) == 3


def test_gradients_by_hand():
    """Every block moves the last frame alike: the gradient is 2 E (z - g), of both parts."""
    subject = finished(task_of(point_model(), WAYS), gd(opt_steps=2))
    off = WAYS.float() / POINT_NORMALIZER.state_std
    one_action = 2 * off * POINT_NORMALIZER.action_std / POINT_NORMALIZER.state_std
    expected = (2**0.5 * one_action.norm(dim=1)).mean().item()  # a block is two actions
    found = [each.mean for each in gradient_norms(subject, torch.arange(6))]
    assert found == pytest.approx([expected] * 3, rel=1e-4)


@pytest.mark.parametrize("num_hist", [1, 3])
def test_every_plan_of_a_closed_loop_is_put_back_to_where_it_was_made(num_hist):
    model = bent_model(x=0.5)
    model.num_hist = num_hist
    subject = finished(task_of(model, 2 * WAYS), MPCController(gd(opt_steps=20), max_iter=4, n_taken_actions=1))
    assert subject.record.planned[:, 3].any()
    for iteration in subject.iterations:
        rows, plans = subject.plans(iteration, subject.rows)
        cost = subject.request(iteration, rows).cost(plans[:, None])[:, 0]
        recorded = torch.from_numpy(subject.record.cost_after)[rows, iteration]
        torch.testing.assert_close(cost, recorded, rtol=1e-3, atol=1e-5)


def test_a_perfect_model_keeps_every_promise_of_a_closed_loop():
    loop = MPCController(gd(opt_steps=10), max_iter=4, n_taken_actions=1)
    subject = finished(task_of(point_model(), 2 * WAYS), loop)
    promises = promises_of(subject, torch.arange(6), lambda: None)
    assert {len(each) for each in promises.values()} <= {1, 2, 3, 4} and sum(map(len, promises.values())) > 6
    for each in (promise for several in promises.values() for promise in several):
        assert each.imagined == pytest.approx(each.true, abs=1e-5)


def test_a_diagnosis_is_plain_json_with_planes_and_an_account():
    subject = finished(task_of(bent_model(y=-1.0), WAYS), gd(opt_steps=30))
    found = diagnosed(replace(subject, rows=torch.tensor([1, 4])))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["episodes"] == [1, 4] and [each["episode"] for each in found["plane"]] == [1, 4]
    drawn = found["plane"][0]
    assert len(drawn["model"]) == len(drawn["y"]) and len(drawn["model"][0]) == len(drawn["x"])
    assert drawn["points"][0] == {"name": "this plan", "x": 0.0, "y": 0.0}
    assert {point["name"] for point in drawn["points"]} >= {"this plan", "actions found in the simulator"}
    text = account(found)
    assert "2 episodes looked at, 2 of them failed" in text and "episode 1: model" in text


def test_planes_of_a_perfect_model_are_those_of_the_simulator():
    found = diagnosed(finished(task_of(point_model(), WAYS), gd(opt_steps=3)), planes=1)
    model, simulator = (torch.tensor(found["plane"][0][name]) for name in ("model", "simulator"))
    torch.testing.assert_close(model, simulator, rtol=1e-3, atol=1e-5)


def test_failed_episodes_are_looked_at_first_and_a_third_are_solved_ones():
    solved = torch.tensor([True, False] * 10)
    assert chosen_episodes(solved, 6).tolist() == [0, 1, 2, 3, 5, 7]
    assert chosen_episodes(torch.zeros(9, dtype=torch.bool), 6).tolist() == list(range(6))
    assert chosen_episodes(torch.ones(9, dtype=torch.bool), 60).tolist() == list(range(9))
