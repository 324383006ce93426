"""L-BFGS on the actions: what it learns of the curvature, and what it does where that is of no use."""

import pytest
import torch

from planning.planners.gd import GDPlanner
from planning.planners.gd_lbfgs import Curvature, LBFGSPlanner, QuasiNewton
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import ActionSpace
from tests.builders import numbers


def quadratic(rows: int = 3, size: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Hessians (R, D, D) with eigenvalues from 0.5 to 50, each in directions of its own, and minima (R, D)."""
    basis = torch.linalg.qr(numbers(rows, size, size, seed=seed))[0]
    values = torch.logspace(-0.3, 1.7, size).expand(rows, -1)
    return basis @ values.diag_embed() @ basis.mT, numbers(rows, size, seed=seed + 1)


def cost_of(hessian: torch.Tensor, minimum: torch.Tensor):
    """Costs of actions (B, N, T, A) whose T * A entries the Hessian couples."""

    def cost(actions):
        away = actions.flatten(2) - minimum[:, None]
        return 0.5 * torch.einsum("bni,bij,bnj->bn", away, hessian, away)

    return cost


def evaluate(function, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = points.clone().requires_grad_()
    values = function(leaf)
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


def test_an_ill_conditioned_quadratic_is_solved_in_few_steps_where_adam_needs_many():
    hessian, minimum = quadratic()
    cost, start = cost_of(hessian, minimum), torch.zeros(3, 2, 2)
    plan = LBFGSPlanner(opt_steps=25).optimize(cost, start, EpisodeNoise(range(3)))
    torch.testing.assert_close(plan.actions.flatten(1), minimum, atol=1e-3, rtol=0)
    adams = [
        GDPlanner(opt_steps=25, lr=lr, action_noise=0.0).optimize(cost, start, EpisodeNoise(range(3))).cost
        for lr in (0.03, 0.1, 0.3)
    ]
    assert (plan.cost < 0.01 * torch.stack(adams).amin(0)).all()


def test_the_recursion_is_the_bfgs_formula():
    """The inverse Hessian updated as a matrix, pair by pair, the oldest of four pairs forgotten."""
    hessian, _ = quadratic()
    curvature, pairs, everywhere = Curvature(torch.zeros(3, 4), 3), [], torch.ones(3, dtype=torch.bool)
    for seed in range(4):
        step = numbers(3, 4, seed=10 + seed)
        pairs.append((step, torch.einsum("rij,rj->ri", hessian, step)))
        assert curvature.add(*pairs[-1], everywhere).all()
    gradient = numbers(3, 4, seed=20)
    for row in range(3):
        step, change = pairs[-1][0][row], pairs[-1][1][row]
        inverse = torch.eye(4) * (step @ change) / (change @ change)
        for step, change in ((s[row], y[row]) for s, y in pairs[1:]):
            left = torch.eye(4) - torch.outer(step, change) / (step @ change)
            inverse = left @ inverse @ left.T + torch.outer(step, step) / (step @ change)
        torch.testing.assert_close(curvature.direction(gradient)[row], -inverse @ gradient[row], rtol=1e-3, atol=1e-4)


def test_only_steps_that_bend_up_are_remembered_and_only_of_the_rows_that_moved():
    curvature, step = Curvature(torch.zeros(3, 2), 2), torch.tensor([[1.0, 0.0]] * 3)
    change = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [2.0, 0.0]])
    assert curvature.add(step, change, torch.tensor([True, True, False])).tolist() == [True, False, False]
    curvature.scale[1:] = 1.0  # the first row's is 1/2, from its pair
    expected = torch.tensor([[-0.5, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    torch.testing.assert_close(curvature.direction(step), expected)


def test_where_the_cost_curves_down_steps_grow_along_the_gradient_up_to_the_longest():
    """A hill between two plains: no pair is ever of use on its slope."""
    rows = QuasiNewton(torch.tensor([[0.1, 0.0]]), 4, 0.4)
    function = lambda points: -(points[:, 0] ** 2)  # noqa: E731
    sizes = []
    for _ in range(4):
        before = rows.trial.clone()
        rows.observe(*evaluate(function, rows.trial))
        assert rows.value.item() == function(before).item()  # every trial is lower, and taken
        sizes.append((rows.trial - before).square().mean().sqrt().item())
    assert sizes == pytest.approx([0.4] * 4)
    rows = QuasiNewton(torch.tensor([[0.1, 0.0]]), 4, 0.4)
    rows.observe(*evaluate(function, rows.trial))
    rows._curvature.scale[:] = 0.01  # as if the valley before had been narrow
    rows.observe(*evaluate(function, rows.trial))
    assert rows._curvature.scale.item() == pytest.approx(0.02)


def test_a_trial_that_is_not_lower_is_followed_by_the_lowest_point_of_a_parabola():
    rows = QuasiNewton(torch.tensor([[1.0]]), 4, 4.0)
    function = lambda points: points[:, 0] ** 2  # noqa: E731
    rows.observe(*evaluate(function, rows.trial))
    torch.testing.assert_close(rows.trial, torch.tensor([[-3.0]]))
    rows.observe(*evaluate(function, rows.trial))
    assert rows.value.item() == 1.0  # it stays where it was
    torch.testing.assert_close(rows.trial, torch.tensor([[0.0]]))


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_trial_without_a_number_is_shortened_and_forgotten(broken):
    function = lambda points: points[:, 0] ** 2 + torch.where(points[:, 0] < 0, broken, 0.0)  # noqa: E731
    rows = QuasiNewton(torch.tensor([[1.0]]), 4, 4.0)
    for _ in range(2):
        rows.observe(*evaluate(function, rows.trial))
    torch.testing.assert_close(rows.trial, torch.tensor([[0.6]]))
    for _ in range(10):
        rows.observe(*evaluate(function, rows.trial))
        assert rows.trial.isfinite().all()
    assert rows.value.item() < 0.01


def test_a_row_does_not_notice_the_others():
    """One easy, one steep, and one that rejects: each path is the one the row takes alone."""
    hessian, minimum = quadratic()
    hessian = hessian * torch.tensor([0.1, 1.0, 100.0])[:, None, None]

    def path(order: list[int]) -> torch.Tensor:
        cost = cost_of(hessian[order], minimum[order])
        rows, visited = QuasiNewton(torch.zeros(len(order), 4), 5, 1.0), []
        for _ in range(8):
            visited.append(rows.trial.clone())
            rows.observe(*evaluate(lambda points: cost(points[:, None, None]).squeeze(1), rows.trial))
        return torch.stack(visited, 1)

    together = path([0, 1, 2])
    for row in range(3):
        torch.testing.assert_close(path([row])[0], together[row], atol=1e-4, rtol=1e-3)


def test_accepted_costs_never_rise_and_no_step_is_longer_than_allowed():
    function = lambda points: (points**2).sum(1) + 3 * torch.sin(4 * points).sum(1)  # noqa: E731
    rows = QuasiNewton(3 * numbers(20, 6), 4, 0.5)
    taken = []
    for _ in range(40):
        trial, before = rows.trial.clone(), rows.value.clone()
        rows.observe(*evaluate(function, trial))
        assert (rows.value <= before).all()
        taken.append((rows.trial - rows._point).square().mean(1).sqrt())
    assert torch.stack(taken).max() <= 0.5 + 1e-5
    assert (function(rows._point) - function(3 * numbers(20, 6))).max() < -1


def test_a_start_at_the_minimum_stays_there():
    rows = QuasiNewton(torch.zeros(2, 3), 4, 1.0)
    for _ in range(5):
        rows.observe(*evaluate(lambda points: points.square().sum(1), rows.trial))
    assert torch.equal(rows.trial, torch.zeros(2, 3))


def test_within_a_box_the_lowest_point_of_the_box_is_found():
    """Coupled entries: the box's lowest point is not the clipped minimum."""
    hessian, minimum = quadratic(size=2)
    low, high = torch.tensor([-0.2, -0.3]), torch.tensor([0.25, 0.1])
    axes = [torch.linspace(low[i], high[i], 401) for i in range(2)]
    grid = torch.cartesian_prod(*axes)[None, :, None].expand(3, -1, -1, -1)
    cost = cost_of(hessian, minimum)
    plan = LBFGSPlanner(opt_steps=40, clip_actions=True).optimize(
        cost, torch.zeros(3, 1, 2), EpisodeNoise(range(3)), ActionSpace(torch.zeros(2), 2, low, high)
    )
    lowest = cost(grid).amin(1)
    assert (cost(minimum.clamp(low, high)[:, None, None]).squeeze(1) > lowest + 0.01).any()
    torch.testing.assert_close(plan.cost, lowest, atol=2e-3, rtol=1e-3)


def test_the_best_of_several_starts_is_kept_and_each_is_counted():
    far = torch.tensor([1.2, 1.2])

    def valleys(actions):
        near, deep = actions.square().sum(3), (actions - far).square().sum(3)
        return torch.minimum(near + 1, 2 * deep).sum(2)

    one, many = (
        LBFGSPlanner(opt_steps=30, longest_step=0.1, num_starts=n).optimize(
            valleys, torch.zeros(3, 1, 2), EpisodeNoise(range(3))
        )
        for n in (1, 64)
    )
    torch.testing.assert_close(one.cost, torch.ones(3), atol=0.01, rtol=0)
    torch.testing.assert_close(many.actions, far.expand(3, 1, 2), atol=0.01, rtol=0)
    assert many.evaluations.tolist() == [64 * 31] * 3 and many.gradient_evaluations.tolist() == [64 * 30] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": 0}, r"planner\.memory must be at least 1, got 0"),
        ({"longest_step": 0.0}, r"planner\.longest_step must be > 0 and finite, got 0"),
        ({"longest_step": float("inf")}, r"planner\.longest_step must be > 0 and finite, got inf"),
    ],
)
def test_a_wrong_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        LBFGSPlanner(**change)
