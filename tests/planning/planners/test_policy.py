"""Planning from the model's proposals: the policy that searches nothing, and several starts of a search."""

import pytest
import torch

from planning.mpc import MPCController
from planning.planners.gd import GDPlanner
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import ActionSpace
from planning.planners.searchless import PolicyPlanner
from tests.builders import PointProposal, numbers, point_task

HORIZON = 2


def task_with_proposal(gains=(0.5, 1.0)):
    task, env = point_task(gains=gains)
    task.observer.model.proposal = PointProposal(HORIZON, task.frameskip)
    return task, env


def starts_of(num_starts, adds_proposal, warm=0, iteration=0):
    """The sequences that a descent evaluates first, and what the model proposes."""
    task, _ = task_with_proposal()
    planner = GDPlanner(
        HORIZON, 1, action_noise=0.0, sample_type="proposal", num_starts=num_starts, adds_proposal=adds_proposal
    )
    episodes = task.start()
    episodes.iteration, episodes.warm_start = iteration, numbers(2, warm, 4, seed=3)
    request = MPCController(planner).request(task, episodes, episodes.active)
    seen, cost = [], request.cost

    def watched(actions):
        seen.append(actions.detach().clone())
        return cost(actions)

    planner.optimize(watched, request.start(), request.noise, request.space)
    proposed = task.observer.model.propose(request.context, request.goal, num_starts)
    return seen[0], proposed, episodes.warm_start


def test_starts_are_the_proposals_best_first_and_a_rest_of_the_last_plan_comes_before_them():
    seen, proposed, _ = starts_of(3, adds_proposal=False)
    assert torch.equal(seen, proposed)
    seen, proposed, rest = starts_of(3, adds_proposal=False, warm=1, iteration=1)
    assert torch.equal(seen[:, 0], torch.cat([rest, proposed[:, 0, 1:]], 1)) and torch.equal(
        seen[:, 1:], proposed[:, 1:]
    )
    seen, proposed, rest = starts_of(3, adds_proposal=True, warm=1, iteration=1)
    assert torch.equal(seen[:, 0, :1], rest) and torch.equal(seen[:, 1:], proposed[:, :2])
    seen, proposed, _ = starts_of(3, adds_proposal=True)
    assert torch.equal(seen, proposed), "no start stands there twice"


def test_what_the_model_does_not_propose_is_drawn_as_ever(monkeypatch):
    monkeypatch.setattr(PointProposal, "candidates", lambda self, start, goal, num: self(start, goal)[:, None])
    seen, proposed, _ = starts_of(3, adds_proposal=False)
    assert torch.equal(seen[:, :1], proposed)
    drawn = EpisodeNoise.derive(7, [1, 11], 0, "cpu").randn(2, HORIZON, 4)
    assert torch.equal(seen[:, 1:], drawn)


@pytest.mark.parametrize(("starts", "sample_type"), [(1, "proposal"), (2, "randn")])
def test_a_start_that_cannot_be_is_refused(starts, sample_type):
    with pytest.raises(
        ValueError,
        match=r"planner\.adds_proposal=true is .* planner\.num_starts of at least 2 and planner\.sample_type=p",
    ):
        GDPlanner(num_starts=starts, sample_type=sample_type, adds_proposal=True)


def test_the_policy_acts_by_a_new_proposal_each_time_and_counts_one_rollout():
    """At gain 1 the proposal leads to the goal; at 0.5 half of what is left is done each time, if it is asked anew."""
    task, _ = task_with_proposal()
    episodes = task.start()
    MPCController(PolicyPlanner(HORIZON), max_iter=4, n_taken_actions=1).run(task, episodes)
    begin, goal = task.problem.states, task.problem.goal_states
    left = (episodes.states - goal) / (begin - goal)
    assert left[0].tolist() == pytest.approx([0.75**4] * 2, abs=1e-4), "a quarter of the way in every iteration"
    assert episodes.records[0]["model_evaluations"] == 1 and episodes.records[0]["gradient_evaluations"] == 0


def test_the_policy_keeps_to_the_range():
    low, high = torch.full((4,), -0.1), torch.full((4,), 0.1)
    space = ActionSpace(torch.zeros(4), 2, low, high, proposal=numbers(3, HORIZON, 4))
    planner = PolicyPlanner(HORIZON, clip_actions=True)
    plan = planner.optimize(lambda actions: actions.square().sum((2, 3)), torch.zeros(3, HORIZON, 4), None, space)
    assert torch.equal(plan.actions, space.proposal.clamp(low, high)) and plan.evaluations.tolist() == [1, 1, 1]
