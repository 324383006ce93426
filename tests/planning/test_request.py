from dataclasses import replace

import pytest
import torch

from planning.mpc import MPCController
from planning.observer import Observer
from planning.planners.gd import GDPlanner
from planning.planners.noise import EpisodeNoise
from planning.request import PlanRequest
from tests.builders import POINT_NORMALIZER, near, point_task


@pytest.mark.parametrize("num_hist", [1, 3])
def test_a_request_by_hand_is_what_a_controller_asks_first(num_hist):
    task, _ = point_task(num_hist=num_hist)
    planner = GDPlanner(horizon=3, opt_steps=4)
    controller = MPCController.of(planner)
    episodes = task.start()
    asked = controller.request(task, episodes, episodes.active)
    start = task.observer.present(task.env, episodes.states)
    noise = EpisodeNoise.derive(task.seed, task.problem.seeds, 0, "cpu")
    by_hand = PlanRequest(planner, task.observer, task.frameskip, task.objective, start, task.goal, noise)
    near(by_hand.plan().actions, asked.plan().actions, 0.0)


def test_progress_counts_every_rollout_of_an_iteration():
    task, _ = point_task(gains=(1.0, 0.5))
    controller = MPCController.of(GDPlanner(horizon=3, opt_steps=4))
    episodes, counts = task.start(), []
    controller.run(task, episodes, lambda _: None, counts.append)
    assert sum(counts) == episodes.evaluations.sum() == 2 * 5


def test_a_warm_start_and_a_horizon_reach_the_planner():
    task, _ = point_task(gains=(1.0,))
    planner = GDPlanner(horizon=5, opt_steps=1, lr=1e-9, action_noise=0.0)
    start, kept = task.observer.present(task.env, task.env.states), torch.full((1, 2, 4), 0.5)
    noise = EpisodeNoise([0])
    request = PlanRequest(
        planner, task.observer, 2, task.objective, start, task.goal, noise, warm_start=kept, horizon=3
    )
    plan = request.plan()
    assert plan.actions.shape == (1, 3, 4)
    near(plan.actions[:, :2], kept, 1e-6)


@pytest.mark.parametrize(
    ("clip", "raw"), [(False, (-5.0, 5.0)), (True, (-5.0, 5.0)), ([0.02, 0.98], (-4.8, 4.8)), ([0.5, 0.985], (0, 4.85))]
)
def test_actions_are_clipped_to_what_the_data_have_at_these_quantiles(clip, raw):
    task, _ = point_task()
    table = torch.linspace(-5, 5, 101)[:, None].repeat(1, 2)
    task = replace(task, observer=Observer(task.observer.model, POINT_NORMALIZER, action_quantiles=table))
    planner = GDPlanner(horizon=3, opt_steps=4, lr=5.0, clip_actions=clip)
    request = MPCController.of(planner).request(task, task.start(), torch.arange(3))
    ends = torch.stack([request.space.low, request.space.high])
    near(POINT_NORMALIZER.actions_to_raw(ends), torch.tensor(raw)[:, None].expand(2, 4), 1e-5)
    planned = POINT_NORMALIZER.actions_to_raw(request.plan().actions)
    inside = (planned >= raw[0] - 1e-4) & (planned <= raw[1] + 1e-4)
    assert inside.all() or not clip
