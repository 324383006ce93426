"""The plain loops of the benchmarks compute what ours compute: only then does a ratio of their times mean anything."""

import pytest
import torch

from benchmarks.plain.model import PlainModel
from benchmarks.plain.online import plain_refresh
from benchmarks.plain.planning import PlainDescent, PlainProblem, plain_cem_step
from benchmarks.plain.training import PlainAdversarial
from planning.cost import LatentGoalCost
from planning.objectives import GoalDistance
from planning.planners.cem import CEMPlanner
from planning.planners.descent import Stage
from planning.planners.gd import GDPlanner
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import ActionSpace, Budget
from planning.planners.search import Search
from tests.builders import RecordedNoise, numbers
from tests.training.tiny import build

TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(scope="module", autouse=True)
def data_folder(wall_root):
    """Where ``build`` finds its data set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATASET_DIR", str(wall_root))
        yield


@pytest.fixture(params=[1, 3], ids=["H=1", "H=3"])
def trainer(request, tmp_path):
    """Build a trainer of a small model on images whose predictor does something, with ``H`` frames of history."""

    def make(*overrides):
        made = build(tmp_path / "run", f"num_hist={request.param}", *overrides)
        with torch.no_grad():
            made.model.predictor.head.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
        return made

    return make


def planning_of(trainer):
    """A frozen model, the plain one of the same weights, a problem of three episodes and its cost."""
    batch = trainer.train_data.__getitems__(range(3))
    model = trainer.model.eval().requires_grad_(False)
    plain = PlainModel(model).frozen()
    latent = model.encode(batch.visual, batch.proprio)
    problem = PlainProblem(batch.visual[:, :1], batch.proprio[:, :1], latent[:, -1:], model.num_hist)
    nothing = batch.actions.new_zeros(3, 0, batch.actions.shape[2])
    cost = LatentGoalCost(model, GoalDistance(), latent[:, :1], nothing, latent[:, -1:])
    return plain, problem, cost, numbers(3, 5, nothing.shape[2])


def test_gradient_steps_visit_the_same_costs_and_end_at_the_same_actions(trainer):
    plain, problem, cost, actions = planning_of(trainer())
    descent = PlainDescent(plain, problem, actions, lr=0.3)
    costs = [descent.step() for _ in range(4)]
    search = Search(cost, Budget(), 1, ActionSpace.plain(actions), clips=False)
    planner = GDPlanner(lr=0.3, action_noise=0.0)
    stages = [Stage(1, 4, range(4))]
    end = planner.descent.run(search, actions[:, None], EpisodeNoise(range(3)), stages, 4, lambda values: values[:, 0])
    torch.testing.assert_close(end[:, 0], descent.actions.detach(), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(end[:, 0], actions, atol=0.1)
    ours = GDPlanner(opt_steps=4, lr=0.3, action_noise=0.0, eval_every=1).optimize(
        cost, actions, EpisodeNoise(range(3))
    )
    torch.testing.assert_close(torch.stack([value for _, value in ours.trace[:4]]), torch.stack(costs), **TOLERANCE)


def test_a_gradient_with_the_encoder_in_the_graph_is_the_same(trainer):
    plain, problem, cost, actions = planning_of(trainer())
    plain.requires_grad_(True)
    descent = PlainDescent(plain, problem, actions, lr=0.3)
    descent.step()
    leaf = actions[:, None].clone().requires_grad_()
    torch.testing.assert_close(descent.actions.grad, torch.autograd.grad(cost(leaf).sum(), leaf)[0][:, 0], **TOLERANCE)
    built = [parameter.grad for parameter in plain.world.predictor.parameters()]
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in built)


def test_an_iteration_of_cem_judges_the_same_and_keeps_the_same_elites(trainer):
    plain, problem, cost, _ = planning_of(trainer())
    mean, draws = numbers(3, 5, cost.past_actions.shape[2], seed=1), numbers(3, 8, 5, cost.past_actions.shape[2])
    new_mean, _, costs = plain_cem_step(plain, problem, mean, torch.ones_like(mean), draws, topk=3)
    samples = torch.cat([mean[:, None], mean[:, None] + draws[:, 1:]], 1)
    torch.testing.assert_close(cost(samples), costs, **TOLERANCE)
    planner = CEMPlanner(opt_steps=1, num_samples=8, topk=3)
    search = Search(cost, Budget(), 1, ActionSpace.plain(mean), clips=False)
    torch.testing.assert_close(planner.refit(search, mean, RecordedNoise([draws]), reserve=0), new_mean, **TOLERANCE)


def test_an_adversarial_step_has_the_same_loss_and_the_same_gradients(trainer):
    ours = trainer("method=adversarial")
    ours.model.eval()
    batch = ours.train_data.__getitems__(range(4))
    plain = PlainModel(ours.model).in_training().eval()
    method = PlainAdversarial(plain, torch.Generator().manual_seed(ours.settings.seed), lr=1e-3)
    draws = torch.Generator().manual_seed(ours.settings.seed)
    ours.method._uniform = lambda part, noise: torch.empty(part.shape).uniform_(-1, 1, generator=draws)
    prediction, decoding = method.losses(batch)
    losses = ours.method.losses(batch, ours.train_step.latent(batch), position=0)
    torch.testing.assert_close(prediction, losses["loss"], **TOLERANCE)
    assert decoding.item() > 0
    prediction.backward()
    losses["loss"].backward()
    compared = 0
    for theirs, mine in zip(plain.world.parameters(), ours.model.parameters(), strict=True):
        if mine.grad is not None:
            torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-3, atol=1e-6)
            compared += 1
    assert compared > 10
    before = [parameter.clone() for parameter in plain.world.predictor.parameters()]
    method.step(batch)
    assert any(not torch.equal(a, b) for a, b in zip(before, plain.world.predictor.parameters(), strict=True))


def test_a_refresh_sees_the_same_frames(trainer):
    ours = trainer("method=online", "method.planner.opt_steps=3", "method.planner.action_noise=0.0")
    ours.model.eval()
    batch = ours.train_data.__getitems__(range(2))
    plain = PlainModel(ours.model).frozen()
    [expected] = ours.method.correct(batch, ours.train_step.latent(batch))
    actions = expected.actions.reshape(2, 5, -1)
    env, observer = ours.method.context.env, ours.train_step.observer
    features, planned = plain_refresh(plain, env, observer, batch, actions, steps=0, context=ours.model.num_hist)
    torch.testing.assert_close(planned, actions)
    torch.testing.assert_close(features, expected.features, rtol=0, atol=2e-3)
    _, elsewhere = plain_refresh(plain, env, observer, batch, actions, steps=1, context=ours.model.num_hist)
    assert not torch.equal(elsewhere, actions)
