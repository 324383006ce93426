"""Early stops: when a problem's search ends, by its own costs only."""

import pytest
import torch

from planning.planners.gd import GDPlanner
from planning.planners.gd_lbfgs import LBFGSPlanner
from planning.planners.noise import EpisodeNoise
from planning.planners.patience import Patience, Stalling

INF, NAN = torch.inf, torch.nan


@pytest.mark.parametrize(
    ("costs", "stops_after"),
    [
        ([100, 100, 100, 100], 3),
        ([100, 99.6, 99.3, 98.9, 98.5, 98.1, 97.8], None),  # 1 % within three steps, though not in one
        ([100, 98, 98, 97.5, 97.1], 4),
        ([-100, -100.5, -100.9, -101.5], None),
        ([-100, -100.5, -100.9, -100.9], 3),
        ([INF, INF, 5, 5, 4], None),
        ([INF, INF, INF, INF], 3),
        ([0, 0, 0, 0], 3),
    ],
    ids=str,
)
def test_a_search_stops_when_so_many_steps_gained_less_than_that_share(costs, stops_after):
    """Beside one that gains in every step, and never stops."""
    stalling, found = Stalling(Patience(0.01, 3), torch.tensor([8.0, costs[0]])), None
    for step, cost in enumerate(costs[1:], start=1):
        stalling.notice(torch.tensor([8.0 / 2**step, cost]), (10 * step, step))
        if found is None and stalling.going.tolist() == [0]:
            found = step
    assert found == stops_after
    if found:
        assert stalling.spent[:, 1].tolist() == [10 * found, found], "what came after is not counted"


def test_the_best_until_then_is_the_plan_and_nothing_is_evaluated_any_more():
    """One problem is at its minimum, one gets there after some steps, one has a long way to go."""
    target, asked = torch.tensor([0.0, 0.3, 5.0]), []

    def cost(actions, problems=None):
        chosen = torch.arange(3) if problems is None else problems
        asked.append(chosen.tolist())
        return (actions[..., 0, 0] - target[chosen, None]).square() + 1

    planner = GDPlanner(
        1, 60, lr=0.1, action_noise=0.0, optimizer_type="sgd", eval_every=10, stop_gain=0.001, stop_steps=3
    )
    plan = planner.optimize(cost, torch.zeros(3, 1, 1), EpisodeNoise(range(3)))
    seen = [sum(problem in step for step in asked) for problem in range(3)]
    assert plan.evaluations.tolist() == seen and seen[0] == 4 < seen[1] < seen[2] < 61
    assert plan.gradient_evaluations.tolist() == seen  # the last step's outcome is evaluated for none
    torch.testing.assert_close(plan.cost, cost(plan.actions[:, None])[:, 0])
    torch.testing.assert_close(plan.actions.flatten(), target, atol=0.05, rtol=0)
    assert all(value.isfinite().all() for _, value in plan.trace)
    assert plan.trace[2][1][0] == plan.cost[0], "where it stopped its cost stays"


@pytest.mark.parametrize("kind", [GDPlanner, LBFGSPlanner])
def test_when_all_have_stopped_nothing_follows_not_even_with_fewer_starts(kind):
    flat = lambda actions: 0 * actions.sum((2, 3)) + 1  # noqa: E731
    planner = kind(1, 60, num_starts=4, drop_every=2, stop_gain=0.01, stop_steps=3)
    plan = planner.optimize(flat, torch.zeros(2, 1, 1), EpisodeNoise(range(2)))
    assert plan.evaluations.tolist() == [4 + 4 + 2 + 2] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stop_gain": 1.0}, r"planner\.stop_gain must be in \[0, 1\) or null, got 1"),
        ({"stop_gain": NAN}, r"planner\.stop_gain must be in \[0, 1\) or null, got nan"),
        ({"stop_steps": 0}, r"planner\.stop_steps must be at least 1, got 0"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        GDPlanner(**settings)
