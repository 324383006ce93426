"""Planners against the recorded trajectories of the original ones, through the recorded world models."""

import pytest
import torch

from datasets.units.normalizer import Normalizer
from models.rollout_type import ROLLOUT_TYPES
from planning.cost import LatentGoalCost
from planning.objectives import GoalDistance
from planning.planners.cem import CEMPlanner
from planning.planners.gd import GDPlanner
from planning.planners.gradcem import GradCEMPlanner
from planning.planners.mppi import MPPIPlanner
from planning.planners.plan import ActionSpace
from tests.builders import RecordedNoise, golden_arrays, golden_model, near

OBJECTIVES = {
    "last_a1": GoalDistance("last", alpha=1.0),
    "all_a1_b05": GoalDistance("all", alpha=1.0, base=0.5),
    "all_a0_b05": GoalDistance("all", alpha=0.0, base=0.5),
}
LEARNING_RATES = {"adam": 0.2, "sgd": 100.0, "momentum": 50.0}


class Recording:
    """A recorded model, recorded arrays, and costs between the two."""

    def __init__(self, model, outputs, planner):
        self.model, self.outputs, self.planner = model, outputs, planner

    def cost(self, arrays, objective: str, rollout: str) -> LatentGoalCost:
        model = self.model
        normalized = {
            name: (arrays[name] - arrays["in/proprio_mean"]) / arrays["in/proprio_std"]
            if "in/proprio_mean" in arrays
            else arrays[name]
            for name in ("in/proprio", "in/goal_proprio")
        }
        start = model.encode(arrays["in/visual_u8"][:, :1], normalized["in/proprio"][:, :1])
        goal = model.encode(arrays["in/goal_visual_u8"], normalized["in/goal_proprio"])
        no_past = torch.empty(2, 0, 10)
        kind = ROLLOUT_TYPES["custom_as_released" if rollout == "custom" else "regular"]
        return LatentGoalCost(model, OBJECTIVES[objective], start, no_past, goal, kind)


@pytest.fixture(params=["h1", "h3"])
def recording(request, shared_golden, golden) -> Recording:
    directory = shared_golden({"h1": "checkpoints/wall_h1", "h3": "checkpoints/pusht_h3"}[request.param])
    outputs, planner = (
        golden_arrays(shared_golden(f"{name}_{request.param}.npz")) for name in ("world_model_outputs", "gd_planner")
    )
    return Recording(golden_model(directory, golden("dinov2_reduced.safetensors")), outputs, planner)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("rollout", ["legacy", "custom"])
def test_objectives_and_their_action_gradients(recording, rollout, objective):
    arrays = recording.outputs
    actions = arrays["in/plan_act"].clone().requires_grad_()
    cost = recording.cost(arrays, objective, rollout)(actions[:, None]).squeeze(1)
    near(cost, arrays[f"objective_{rollout}/{objective}"], 1e-5)
    near(torch.autograd.grad(cost.sum(), actions)[0], arrays[f"action_grad_{rollout}/{objective}"], 1e-4)


@pytest.mark.parametrize("rollout", ["regular", "custom"])
@pytest.mark.parametrize(
    ("optimizer", "objective"),
    [("adam", "last_a1"), ("adam", "all_a1_b05"), ("sgd", "all_a1_b05"), ("momentum", "all_a1_b05")],
)
def test_gradient_descent_takes_the_recorded_path(recording, optimizer, rollout, objective):
    arrays, name = recording.planner, f"gd_{optimizer}_{rollout}_{objective}"
    cost, visited, seen = recording.cost(arrays, objective, rollout), [], []

    def witnessed(actions):
        visited.append(actions[:, 0].detach().clone())
        value = cost(actions)
        seen.append(value[:, 0].detach())
        return value

    planner = GDPlanner(
        5, 10, LEARNING_RATES[optimizer], 0.0, optimizer_type=optimizer, rollout_type=rollout, eval_every=1
    )
    plan = planner.optimize(witnessed, arrays["in/actions_init"], RecordedNoise([torch.empty(2, 0)]))
    torch.testing.assert_close(torch.stack(visited), arrays[f"{name}/actions"], atol=1e-3, rtol=0)
    best = torch.stack(seen).argmin(0)  # a plan is the best that was visited, not always the last
    torch.testing.assert_close(plan.actions, torch.stack(visited)[best, [0, 1]])
    losses = torch.stack([value.sum() for _, value in plan.trace[:-1]])
    near(losses, arrays[f"{name}/loss"], 1e-4)


def normalizer(arrays) -> Normalizer:
    mean, std = arrays["in/action_mean"], arrays["in/action_std"]
    return Normalizer(mean, std, mean, std, mean, std)


@pytest.mark.parametrize("memory", ["", "_memo"])
@pytest.mark.parametrize("sample_type", ["randn", "zero"])
def test_initial_actions(recording, sample_type, memory):
    arrays = recording.planner
    expected = arrays[f"init_actions/{sample_type}{memory}"]
    kept = 4 if memory else 0
    warm_start = arrays["in/actions_init"][:, 1:] if memory else None
    zero_action = normalizer(arrays).actions_to_z(torch.zeros(10))
    noise = RecordedNoise([expected[:, kept:]])
    found = GDPlanner(sample_type=sample_type).initial_actions(noise, ActionSpace(zero_action, 2), warm_start)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_solved_episode_does_nothing_in_raw_units(recording):
    arrays = recording.planner
    expected = arrays["mpc_success_mask/out"][0, 0]  # of the element that had succeeded
    torch.testing.assert_close(normalizer(arrays).actions_to_z(torch.zeros(10)), expected, atol=1e-6, rtol=0)


def test_the_cross_entropy_method_refits_as_recorded(recording):
    arrays, seen, costs = recording.planner, [], []
    cost = recording.cost(arrays, "last_a1", "regular")

    def witnessed(actions):
        seen.append(actions.clone())
        costs.append(cost(actions))
        return costs[-1]

    draws = [*arrays["cem/randn"], torch.ones(2, 16, 5, 10)]  # ones: one more iteration shows the last deviation
    planner = CEMPlanner(5, opt_steps=4, num_samples=16, topk=4)
    planner.optimize(witnessed, torch.zeros(2, 5, 10), RecordedNoise(draws))
    for iteration in range(3):
        near(costs[iteration], arrays["cem/sample_losses"][iteration], 1e-5)
        mean, std = arrays["cem/mu"][iteration], arrays["cem/sigma"][iteration]
        torch.testing.assert_close(seen[iteration + 1][:, 0], mean, atol=1e-4, rtol=0)
        expected = mean[:, None] + std[:, None] * draws[iteration + 1]
        torch.testing.assert_close(seen[iteration + 1][:, 1:], expected[:, 1:], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("rollout", "optimizer"), [("regular", "sgd"), ("custom", "adam")])
def test_the_samples_of_gradcem_descend_and_are_chosen_as_recorded(recording, rollout, optimizer):
    arrays, name, seen, costs = recording.planner, f"gradcem_{rollout}", [], []
    cost = recording.cost(arrays, "last_a1", rollout)

    def witnessed(actions):
        seen.append(actions.detach().clone())
        costs.append(cost(actions))
        return costs[-1]

    draws = []
    for drawn, noise in zip(arrays[f"{name}/randn"], arrays[f"{name}/noise"], strict=True):
        draws += [drawn, *noise[..., 0, :].unbind(1)]
    draws += [torch.ones(2, 8, 5, 10)] + [torch.zeros(2, 8, 5, 10)] * 2  # one more iteration shows the last deviation
    lr = {"sgd": 0.1 / 8, "adam": 0.1}[optimizer]  # the mean over samples was descended: to SGD an eighth of the rate
    planner = GradCEMPlanner(5, 3, 8, 4, grad_steps=2, lr=lr, optimizer_type=optimizer, rollout_type=rollout)
    planner.optimize(witnessed, torch.zeros(2, 5, 10), RecordedNoise(draws))
    for iteration in range(2):
        losses = torch.stack([value.detach() for value in costs[3 * iteration : 3 * iteration + 3]], 1)
        near(losses, arrays[f"{name}/losses"][iteration], 1e-4)
        mean, std = arrays[f"{name}/mu"][iteration], arrays[f"{name}/sigma"][iteration]
        after = seen[3 * (iteration + 1)]
        torch.testing.assert_close(after[:, 0], mean, atol=1e-4, rtol=0)
        drawn = draws[3 * (iteration + 1)]
        torch.testing.assert_close(after[:, 1:], (mean[:, None] + std[:, None] * drawn)[:, 1:], atol=1e-4, rtol=0)


def test_mppi_averages_as_recorded(recording):
    arrays, costs, seen = recording.planner, [], []
    cost = recording.cost(arrays, "all_a1_b05", "custom")

    def witnessed(actions):
        seen.append(actions.clone())
        costs.append(cost(actions))
        return costs[-1]

    planner = MPPIPlanner(5, 1, 8, temperature=1.0, relative_temperature=False, noise_decay=1.0)
    start = arrays["mppi/initial_draw"]
    for draw, result in (("mppi/noise", "mppi/actions"), ("mppi/second_noise", "mppi/second_actions")):
        planner.optimize(witnessed, start, RecordedNoise([arrays[draw]]))
        torch.testing.assert_close(seen[-1][:, 0], arrays[result], atol=1e-4, rtol=0)
        start = torch.cat([arrays[result][:, 1:], arrays["mppi/second_tail_draw"]], 1)
    recorded = arrays["mppi/rollout_costs"]  # of both episodes, then of both again
    near(torch.cat([costs[0][:, 1:], costs[2][:, 1:]]), recorded, 1e-5)
