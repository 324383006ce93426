"""Learning while planning: weights of an episode's own, against a loop over episodes; what is learnt and kept."""

import copy
import io

import pytest
import torch

from models.adapted import AdaptedPredictor, adapted_model
from models.interfaces import Predictor
from models.networks.residual import ResidualMLP, ResidualViT
from models.networks.vit import ViTPredictor
from planning.adaptation import Adaptation, prediction_errors
from planning.cost import LatentGoalCost
from planning.episodes import Episodes
from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.planners.gd import GDPlanner
from tests.builders import bare_model, latent_of, numbers, point_task

EPISODES, TOKENS, WIDTH = 3, 2, 4
NETWORKS = {
    "vit": lambda: ViTPredictor(TOKENS, 2, WIDTH, 2, 2, 8, 4),
    "residual": lambda: ResidualViT(TOKENS, 2, WIDTH, width=8, depth=1, heads=2, dim_head=4, mlp_dim=8),
    "mlp": lambda: ResidualMLP(TOKENS, 1, WIDTH, width=8, depth=1),
}
ADAPT = {"lr": 1.0, "steps": 2, "parameters": "all"}


def disturbed(predictor: Predictor, parameters: str = "all"):
    """Weights for some episodes that differ, and a predictor with those of each."""
    model = bare_model()
    model.predictor = predictor
    weights = Adaptation(0.1, parameters=parameters).begin(model, EPISODES)
    weights = {name: value + 0.3 * numbers(*value.shape, seed=n) for n, (name, value) in enumerate(weights.items())}
    alone = [copy.deepcopy(predictor) for _ in range(EPISODES)]
    for number, each in enumerate(alone):
        each.load_state_dict({name: value[number] for name, value in weights.items()}, strict=False)
    return weights, alone


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("episode", [None, [0, 0, 1, 1, 2, 2], [0, 1, 1, 2]], ids=["own", "equal", "ragged"])
def test_a_row_is_predicted_with_the_weights_of_its_episode(name, episode):
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    frames = network.num_frames if name == "vit" else 1
    weights, alone = disturbed(network)
    rows = list(range(EPISODES)) if episode is None else episode
    tokens = numbers(len(rows), frames * TOKENS, WIDTH).requires_grad_()
    adapted = AdaptedPredictor(network, weights).of_episodes(None if episode is None else torch.tensor(episode))
    found = adapted(tokens)
    expected = torch.cat([alone[at](tokens[row : row + 1]) for row, at in enumerate(rows)])
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(out.square().sum(), tokens)[0] for out in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("parameters", ["norms", "last", "all"])
@pytest.mark.parametrize("reuse", [True, False])
def test_costs_are_those_of_each_episode_s_own_model(parameters, reuse):
    """With a history and its cache, several candidates for each episode, and chunks that cut episodes in two."""
    model = bare_model(num_hist=3).requires_grad_(False)
    weights, alone = disturbed(model.predictor, parameters)
    context, goal = latent_of(EPISODES, 2, model=model), latent_of(EPISODES, 1, model=model, seed=1)
    past, actions = numbers(EPISODES, 1, 4), numbers(EPISODES, 4, 3, 4).requires_grad_()

    def cost(model, rows, gigabytes=4.0, whole=False):
        parts = (context[rows], past[rows], goal[rows])
        made = LatentGoalCost(model, GoalDistance("all"), *parts, memory_budget_gb=gigabytes, whole_episodes=whole)
        return made(actions[rows])

    expected = []
    for number, predictor in enumerate(alone):
        one = copy.copy(model)
        one.__dict__["_modules"] = {**model._modules, "predictor": predictor.eval()}
        expected.append(cost(one, slice(number, number + 1)))
    expected = torch.cat(expected)
    size = 5 * model.rollout_bytes(4, with_grad=True) / 2**30
    for gigabytes, whole in ((4.0, True), (size, True), (size, False)):
        found = cost(adapted_model(model, weights, reuse), slice(None), gigabytes, whole)
        torch.testing.assert_close(found, expected)
        first, second = (torch.autograd.grad(each.sum(), actions, retain_graph=True)[0] for each in (found, expected))
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-3)


def controller(adapt=ADAPT, **changes):
    planner = GDPlanner(2, 20, lr=0.3, action_noise=0.01, sample_type="randn")
    return MPCController(planner, **{"max_iter": 5, "adapt": adapt} | changes)


def run(task, loop, until=None):
    episodes = task.start()
    loop.run(task, episodes)
    return episodes


@pytest.mark.parametrize("taken", [1, 2], ids=["one block", "two blocks"])
def test_a_model_that_is_wrong_about_the_gain_learns_it_in_each_episode(taken):
    task, _ = point_task(gains=(0.4, 1.6, 1.0))
    task.env.radius = 0.0  # nothing is ever solved
    model = task.observer.model
    before = copy.deepcopy(model.state_dict())
    episodes = run(task, controller(n_taken_actions=taken, max_iter=8))
    wrong = (episodes.adapted["one"] - torch.tensor([0.4, 1.6, 1.0])).abs()
    assert wrong[:2].max() < 0.15 and wrong[2] < 1e-4, "it was off by 0.6 where it was wrong"
    losses = [record["adaptation_loss"] for record in episodes.records]
    assert losses[-1] < 0.05 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "what all share stays"
    still = run(task, controller(None, n_taken_actions=taken, max_iter=8))
    assert not still.adapted and "adaptation_loss" not in still.records[0]
    assert (episodes.divergence[:2, 0] < 0.3 * still.divergence[:2, 0]).all(), "what is imagined is what happens"


@torch.no_grad()
def test_errors_are_those_of_single_predictions_from_real_frames():
    model = bare_model(num_hist=2, concat_dim=0)
    frames, actions = latent_of(2, 4, model=model), numbers(2, 3, 4)
    expected = torch.zeros(2)
    for end in (2, 3):  # frames 0 and 1 are known, and two at most are seen
        predicted = model.predict(frames[:, end - 2 : end], actions[:, end - 2 : end])[:, -1:]
        target = frames[:, end : end + 1]
        apart = [(a - b).flatten(1) for a, b in zip(vars(predicted).values(), vars(target).values(), strict=True)]
        expected += torch.cat(apart, 1).square().mean(1) / 2
    torch.testing.assert_close(prediction_errors(model, frames, actions, 2), expected)


def test_one_step_is_a_plain_gradient_step_on_the_error_of_the_new_frames():
    model = bare_model(num_hist=2).requires_grad_(False)
    frames, actions = latent_of(2, 4, model=model), numbers(2, 3, 4)
    adaptation = Adaptation(0.05, parameters="last")
    weights = adaptation.begin(model, 2)
    learnt, losses = adaptation.learn(model, weights, frames, actions, new=2)
    for row in range(2):
        one = copy.deepcopy(model)
        last = one.predictor.transformer.layers[-1][1].net[4].requires_grad_()
        whole = prediction_errors(one, frames[row : row + 1], actions[row : row + 1], 2)
        torch.testing.assert_close(losses[row], whole.detach()[0])
        gradient = torch.autograd.grad(whole.sum(), last.weight)[0]
        name = next(name for name in weights if name.endswith("weight"))
        torch.testing.assert_close(learnt[name][row], weights[name][row] - 0.05 * gradient)
    assert set(learnt) == {"transformer.layers.1.1.net.4.weight", "transformer.layers.1.1.net.4.bias"}


def test_an_episode_does_not_depend_on_those_beside_it():
    task, _ = point_task(gains=(0.4, 1.6, 1.0))
    task.env.radius = 0.3
    together = run(task, controller())
    for row in range(3):
        task, _ = point_task(gains=(0.4, 1.6, 1.0)[: row + 1])  # without those that come later
        task.env.radius = 0.3
        fewer = run(task, controller())
        length = min(fewer.played.shape[1], together.played.shape[1])
        torch.testing.assert_close(fewer.played[row, :length], together.played[row, :length], atol=1e-4, rtol=1e-4)
        assert fewer.solved_at[row] == together.solved_at[row]
        torch.testing.assert_close(fewer.adapted["one"][row], together.adapted["one"][row], atol=1e-4, rtol=1e-4)


def test_saved_after_any_iteration_it_goes_on_to_the_same_numbers():
    task, _ = point_task(gains=(0.4, 1.6, 1.0))
    whole = run(task, controller())
    for after in (1, 3):
        first = task.start()
        controller(max_iter=after).run(task, first)
        file = io.BytesIO()
        torch.save(first.as_dict(), file)
        file.seek(0)
        again = Episodes(**torch.load(file, weights_only=True)).to(torch.device("cpu"))
        task.resume(again)
        controller().run(task, again)
        assert torch.equal(again.played, whole.played) and torch.equal(again.adapted["one"], whole.adapted["one"])


@pytest.mark.parametrize(
    ("adapt", "message"),
    [
        ({"steps": 1}, r"planner\.adapt\.lr is missing"),
        ({"lr": 0}, r"planner\.adapt\.lr must be a finite number > 0, got 0"),
        ({"lr": "high"}, r"planner\.adapt\.lr must be a finite number > 0, got 'high'"),
        ({"lr": 0.1, "steps": True}, r"planner\.adapt\.steps must be a whole number, at least 1, got True"),
        ({"lr": 0.1, "steps": 0}, r"planner\.adapt\.steps must be a whole number, at least 1, got 0"),
        ({"lr": 0.1, "parameters": "few"}, r"planner\.adapt\.parameters must be one of norms, last, all, got 'few'"),
        ({"lr": 0.1, "rate": 1}, r"planner\.adapt\.rate: there is no such setting; there are lr, steps, parameters"),
    ],
)
def test_settings_that_mean_nothing_are_refused(adapt, message):
    with pytest.raises(ValueError, match=message):
        controller(adapt)


def test_weights_that_a_predictor_does_not_have_are_refused_before_anything_is_planned():
    task, env = point_task()
    with pytest.raises(ValueError, match=r"planner\.adapt\.parameters=norms: the predictor PointPredictor has no such"):
        run(task, controller({"lr": 0.1, "parameters": "norms"}))
    assert not env.executed
