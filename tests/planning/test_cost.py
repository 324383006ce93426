import pytest
import torch

from models.latent import Latent
from models.rollout_type import ROLLOUT_TYPES
from models.world_model import WorldModel
from planning.cost import LatentGoalCost
from planning.objectives import GoalDistance
from planning.planners.cem import CEMPlanner
from planning.planners.gd import GDPlanner
from planning.planners.noise import EpisodeNoise
from tests.builders import bare_model, batch_sizes, latent_of, near, numbers
from utils.schema import check_arguments

GIGABYTE = 2**30


@pytest.fixture
def model() -> WorldModel:
    return bare_model(num_hist=2).requires_grad_(False)


def make(model: WorldModel, batch: int = 3, frames: int = 2, mode: str = "last", **settings) -> LatentGoalCost:
    context, goal = latent_of(batch, frames, model=model), latent_of(batch, 1, model=model, seed=1)
    return LatentGoalCost(model, GoalDistance(mode), context, numbers(batch, frames - 1, 4, seed=9), goal, **settings)


def budget(model: WorldModel, rows: int, steps: int, with_grad: bool) -> float:
    """In gigabytes, for so many rows at a time."""
    return (rows + 0.5) * model.rollout_bytes(steps, with_grad) / GIGABYTE


@pytest.mark.parametrize("mode", ["last", "all"])
def test_a_candidate_is_judged_by_its_own_rollout(model, mode):
    """Row (b, n) from scratch: context and goal of episode b, actions of its candidate n."""
    cost, actions = make(model, mode=mode), numbers(3, 4, 3, 4)
    found = cost(actions)
    assert found.shape == (3, 4)
    for b in range(3):
        for n in range(4):
            sequence = torch.cat([cost.past_actions[b : b + 1], actions[b : b + 1, n]], 1)
            imagined = model.rollout(cost.context[b : b + 1], sequence)
            expected = GoalDistance(mode)(imagined[:, 1:], cost.goal[b : b + 1])
            near(found[b, n], expected[0], 1e-5)


@pytest.mark.parametrize("rows", [1, 2, 5, 11])
@pytest.mark.parametrize("with_grad", [False, True], ids=["values", "gradients"])
def test_chunks_change_nothing_and_keep_to_the_budget(model, rows, with_grad):
    actions = numbers(3, 4, 3, 4).requires_grad_(with_grad)
    whole, weights = make(model), numbers(3, 4)
    chunked = make(model, memory_budget_gb=budget(model, rows, 4, with_grad))
    expected = whole(actions)
    sizes = batch_sizes(model.predictor)
    found = chunked(actions)
    assert sizes.pop(0) == 3  # the past of the episodes, once
    assert max(sizes) == rows
    assert len(sizes) == -(-12 // rows) * 3  # calls of the predictor: one per chunk and step
    near(found, expected, 1e-5)
    if with_grad:  # with unequal upstream gradients, as GradCEM or a weighted sum would send
        near(*(torch.autograd.grad((value * weights).sum(), actions)[0] for value in (found, expected)), 1e-5)


@pytest.mark.parametrize("rows", [2, 12])
def test_candidates_of_some_problems_cost_what_they_do_among_all(model, rows):
    actions, chosen = numbers(3, 4, 3, 4).requires_grad_(), torch.tensor([2, 0])
    cost = make(model, memory_budget_gb=budget(model, rows, 4, True))
    whole = cost(actions)
    found = cost(actions[chosen], chosen)
    near(found, whole[chosen], 1e-5)
    of_some, of_all = (torch.autograd.grad(value.sum(), actions)[0] for value in (found, whole))
    near(of_some[chosen], of_all[chosen], 1e-5)
    assert (of_some[1] == 0).all()


def test_chunks_of_a_backward_pass_leave_the_weights_alone():
    model = bare_model(num_hist=2)
    chunked = make(model, memory_budget_gb=budget(model, 2, 4, True))
    actions = numbers(3, 1, 3, 4).requires_grad_()
    chunked(actions).sum().backward()
    assert actions.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_even_the_smallest_budget_makes_progress(model):
    assert make(model, memory_budget_gb=1e-12)(numbers(3, 2, 3, 4)).shape == (3, 2)


@pytest.mark.parametrize("wrong", [0, -1.0, "plenty", True, None, float("inf"), float("nan"), [4]])
def test_a_budget_that_nothing_fits_is_refused(wrong):
    online = {"_target_": "training.methods.online.Online", "memory_budget_gb": wrong}
    with pytest.raises(ValueError, match=r"method.memory_budget_gb=.* must be a number, above 0, .* or auto"):
        check_arguments(online, "method")
    for right in ("auto", 0.5, 4):
        check_arguments({**online, "memory_budget_gb": right}, "method")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_gradients_may_take_a_quarter_of_its_memory(model):
    cost = make(model)
    cost.past_actions = cost.past_actions.to("cuda")
    quarter = torch.cuda.get_device_properties("cuda").total_memory // 4
    assert cost._budget(with_grad=True) == quarter
    assert cost._budget(with_grad=False) == 4 * GIGABYTE


def test_an_estimate_is_made_for_all_steps_of_a_row(model):
    """A longer past is imagined as well, so that fewer rows fit."""
    sizes = batch_sizes(model.predictor)
    gigabytes = budget(model, 6, 4, False)
    make(model, frames=2, memory_budget_gb=gigabytes)(numbers(3, 2, 3, 4))
    assert max(sizes) == 6
    sizes.clear()
    make(model, frames=12, memory_budget_gb=gigabytes)(numbers(3, 2, 3, 4))
    assert max(sizes) < 6


def test_without_action_gradients_no_graph_is_kept():
    """Not even of a model whose weights would take gradients."""
    model = bare_model(num_hist=2)
    cost, sizes = make(model, memory_budget_gb=budget(model, 12, 4, False)), batch_sizes(model.predictor)
    assert not cost(numbers(3, 4, 3, 4)).requires_grad
    assert sizes == [3, 12, 12, 12]  # the past of the episodes, then all candidates


def test_rows_do_not_influence_each_other(model):
    cost, actions = make(model), numbers(3, 4, 3, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(cost(actions)[1, 2], actions)
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[1, 2] = True
    assert gradient[mask].abs().max() > 0
    assert gradient[~mask].abs().max() == 0


def test_the_gradient_of_an_episode_does_not_depend_on_the_batch(model):
    actions = numbers(3, 1, 3, 4)
    together, alone = actions.clone().requires_grad_(), actions[1:2].clone().requires_grad_()
    whole = make(model)
    single = LatentGoalCost(model, GoalDistance(), whole.context[1:2], whole.past_actions[1:2], whole.goal[1:2])
    near(
        torch.autograd.grad(single(alone).sum(), alone)[0],
        torch.autograd.grad(whole(together).sum(), together)[0][1:2],
        1e-5,
    )


def test_custom_rollouts_see_the_last_frame_only(model):
    actions = numbers(3, 2, 3, 4)
    custom = ROLLOUT_TYPES["custom"]
    whole = make(model, rollout=custom)
    last = LatentGoalCost(model, GoalDistance(), whole.context[:, 1:], torch.empty(3, 0, 4), whole.goal, custom)
    near(whole(actions), last(actions), 1e-6)
    assert not torch.allclose(make(model)(actions), whole(actions), rtol=1e-3)


def test_imagining_shows_the_present_and_what_follows(model):
    cost, actions = make(model), numbers(3, 4, 4).requires_grad_()
    imagined = cost.imagine(actions)
    assert imagined.num_frames == 5
    assert not imagined.visual.requires_grad
    assert torch.equal(imagined.visual[:, 0], cost.context.visual[:, -1])
    expected = model.rollout(cost.context, torch.cat([cost.past_actions, actions], 1))[:, 1:]
    near(imagined.visual, expected.visual.detach(), 1e-6)
    sizes = batch_sizes(model.predictor)
    tiny = make(model, memory_budget_gb=1e-12).imagine(actions)
    assert sizes == [3] + [1] * 3 * 4
    near(tiny.visual, imagined.visual, 1e-5)
    near(tiny.proprio, imagined.proprio, 1e-5)


def test_progress_counts_every_rollout_once(model):
    counts: list[int] = []
    make(model, progress=counts.append, memory_budget_gb=budget(model, 5, 4, False))(numbers(3, 4, 3, 4))
    assert counts == [5, 5, 2]


def test_a_whole_population_is_evaluated_in_one_call_per_step():
    """Not one episode, not one sample at a time."""
    model = bare_model(num_hist=2).requires_grad_(False)
    cost, sizes = make(model, batch=4, frames=1), batch_sizes(model.predictor)
    CEMPlanner(horizon=3, opt_steps=5, num_samples=7, topk=2).optimize(cost, numbers(4, 3, 4), EpisodeNoise(range(4)))
    assert sizes == [4 * 7] * 3 * 5 + [4] * 3


def test_gradient_descent_calls_neither_encoder_nor_decoder(model):
    encoded, felt = batch_sizes(model.encoder), batch_sizes(model.proprio_encoder)
    model.decoder = torch.nn.Identity()
    decoded, predicted = batch_sizes(model.decoder), batch_sizes(model.predictor)
    planner = GDPlanner(horizon=3, opt_steps=4)
    planner.optimize(make(model), numbers(3, 3, 4), EpisodeNoise(range(3)))
    assert (encoded, felt, decoded) == ([], [], [])
    assert predicted == [3] + [3] * 3 * 5  # the past once, then three steps of each rollout


def test_planning_through_the_model_lowers_the_distance(model):
    """Towards a goal that some actions are known to reach."""
    start = latent_of(3, 1, model=model)
    known = numbers(3, 3, 4, seed=4)
    goal = model.rollout(start, known)[:, -1:]
    cost = LatentGoalCost(model, GoalDistance(), start, known[:, :0], Latent(goal.visual, goal.proprio))
    planner = GDPlanner(horizon=3, opt_steps=150, lr=0.1, action_noise=0.0)
    plan = planner.optimize(cost, torch.zeros_like(known), EpisodeNoise(range(3)))
    assert (plan.cost < 0.05 * plan.trace[0][1]).all()
