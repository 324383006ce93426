"""What our own planners owe their users beyond the contract of all (tests/contracts/planner_contract.py), by file."""

import functools
import inspect
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from planning.mpc import MPCController
from planning.planners.base import Planner
from planning.planners.cem_gd import CEMGDPlanner
from planning.planners.descent import OPTIMIZERS
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import ActionSpace, Plan, RolloutFlops
from tests.builders import REPOSITORY, WitnessedNoise

OPTIONS = sorted(path.stem for path in (REPOSITORY / "conf" / "planner").glob("*.yaml"))
SEARCHLESS = ("random", "mpc_random", "policy", "mpc_policy")
NAMES = [name for name in OPTIONS if name not in SEARCHLESS]
OPEN_LOOP = [name for name in NAMES if not name.startswith("mpc_")]
TARGET = torch.tensor([[[0.5, -0.5], [0.2, 0.0]], [[-1.0, 0.25], [0.0, 0.6]], [[0.1, 1.0], [-0.4, 0.3]]])  # (3, 2, 2)


@functools.cache
def configured(name: str) -> DictConfig:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        if name.startswith("mpc_"):
            return compose("plan_wall", overrides=[f"planner={name}"]).planner
        return compose(f"planner/{name}").planner


def build(name: str, **changes: Any) -> Planner:
    """The planner of a config option; of a closed loop, the one inside it."""
    made = instantiate(configured(name), **changes)
    return made.planner if name.startswith("mpc_") else made


def knows(name: str, key: str | None) -> bool:
    return key is None or key in inspect.signature(get_class(configured(name)._target_)).parameters


@pytest.fixture(params=NAMES)
def planner(request) -> Planner:
    return build(request.param)


@pytest.fixture(params=OPEN_LOOP)
def open_loop(request) -> str:
    return request.param


def bowl(target: torch.Tensor):
    """Convex costs with their minima at ``target`` (B, T, A), steeper for some problems and entries than for others."""
    steepness = torch.linspace(0.5, 2, target.numel()).view_as(target)
    return lambda actions: (steepness[:, None] * (actions - target[:, None]).square()).sum((2, 3))


def waves(actions: torch.Tensor) -> torch.Tensor:
    """Costs with many minima: which one a search ends in depends on where it begins."""
    return torch.sin(4 * actions).sum((2, 3))


def space(*zero: float) -> ActionSpace:
    return ActionSpace(torch.tensor(zero), 2)


def seeds(count: int) -> list[int]:
    return [5 * n + 3 for n in range(count)]


def test_the_minimum_of_each_problem_in_the_batch_is_found(planner):
    plan = planner.optimize(bowl(TARGET), torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
    torch.testing.assert_close(plan.actions, TARGET, atol=0.05, rtol=0)
    assert plan.cost.shape == (3,)
    assert plan.cost.max() < 0.02


def test_an_episode_does_not_notice_the_batch_it_is_in(planner):
    orders = [[0, 1, 2], [2, 0, 1], [1], [2, 1]]
    plans, draws = [], []
    steepness = torch.linspace(0.5, 2, TARGET.numel()).view_as(TARGET)
    for order in orders:
        noise = WitnessedNoise([seeds(3)[episode] for episode in order])

        def cost(actions, order=order):
            return (steepness[order][:, None] * (actions - TARGET[order][:, None]).square()).sum((2, 3))

        start = planner.initial_actions(noise, space(0.1, 0.2))[:, :2]
        plans.append(planner.optimize(cost, start, noise))
        draws.append(noise.given)
    for order, plan, given in zip(orders[1:], plans[1:], draws[1:], strict=True):
        torch.testing.assert_close(plan.actions, plans[0].actions[order], atol=1e-5, rtol=0)
        assert len(given) == len(draws[0])
        for found, expected in zip(given, draws[0], strict=True):
            assert torch.equal(found, expected[order])


def test_the_same_seeds_give_the_same_plan_and_others_another(planner):
    def plan(of: list[int]) -> torch.Tensor:
        noise = EpisodeNoise(of)
        return planner.optimize(waves, planner.initial_actions(noise, space(0.0, 0.0))[:, :2], noise).actions

    assert torch.equal(plan(seeds(3)), plan(seeds(3)))
    assert not torch.equal(plan(seeds(3)), plan([1, 2, 3]))


def test_all_episodes_are_planned_in_the_same_calls(open_loop):
    """As many calls for many episodes as for one."""

    def calls(batch: int) -> int:
        target, number = TARGET[:1].expand(batch, -1, -1), 0

        def counted(actions):
            nonlocal number
            number += 1
            assert actions.shape[0] == batch
            return (actions - target[:, None]).square().sum((2, 3))

        build(open_loop, opt_steps=3).optimize(counted, torch.zeros_like(target), EpisodeNoise(seeds(batch)))
        return number

    assert calls(1) == calls(6)


def test_the_trace_has_every_so_many_steps_and_the_end(open_loop):
    planner = build(open_loop, opt_steps=7, eval_every=3)
    plan = planner.optimize(bowl(TARGET), torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
    last = 7 + getattr(planner, "grad_steps", 0) * (type(planner) is CEMGDPlanner)
    assert [step for step, _ in plan.trace] == [*range(0, last, 3), last]
    assert all(value.shape == (3,) for _, value in plan.trace)
    assert torch.equal(plan.trace[-1][1], plan.cost)
    torch.testing.assert_close(plan.trace[0][1], bowl(TARGET)(torch.zeros_like(TARGET)[:, None]).squeeze(1))


@pytest.mark.parametrize("name", [name for name in OPEN_LOOP if knows(name, "sample_type")])
def test_zero_actions_do_nothing_in_raw_units(name):
    planner = build(name, sample_type="zero")
    found = planner.initial_actions(EpisodeNoise(seeds(2)), space(0.3, -0.7))
    assert torch.equal(found, torch.tensor([0.3, -0.7]).expand(2, planner.horizon, 2))


def test_random_starts_are_standard_normal():
    drawn = build("gd").initial_actions(EpisodeNoise(range(400)), ActionSpace(torch.zeros(10), 2))
    assert abs(drawn.mean()) < 0.03
    assert abs(drawn.std() - 1) < 0.03


WRONG = [
    (None, {"horizon": 0}, r"planner\.horizon must be at least 1, got 0"),
    (None, {"opt_steps": 0}, r"planner\.opt_steps must be at least 1, got 0"),
    (None, {"eval_every": 0}, r"planner\.eval_every must be at least 1, got 0"),
    (
        None,
        {"rollout_type": "own"},
        r"planner\.rollout_type must be one of regular, custom, custom_as_released, got 'own'",
    ),
    ("sample_type", {"sample_type": "ones"}, r"planner\.sample_type must be one of randn, zero, proposal, got 'ones'"),
    (None, {"budget_ms": 0}, r"planner\.budget_ms must be > 0 or null, got 0"),
    (None, {"budget_tflops": 0}, r"planner\.budget_tflops must be > 0 or null, got 0"),
    (None, {"budget_evals": 1}, r"planner\.budget_evals=1 does not allow one step"),
    ("num_starts", {"num_starts": 0}, r"planner\.num_starts must be at least 1, got 0"),
    ("grad_steps", {"grad_steps": 0}, r"planner\.grad_steps must be at least 1, got 0"),
    ("cem_share", {"cem_share": 1}, r"planner\.cem_share must be in \(0, 1\), got 1"),
    ("temperature", {"temperature": 0}, r"planner\.temperature.* must be > 0, got 0"),
    ("noise_decay", {"noise_decay": 0}, r"planner\.noise_decay must be in \(0, 1\], got 0"),
    ("noise_beta", {"noise_beta": 11}, r"planner\.noise_beta must be in \[0, 10\], got 11"),
    ("noise_beta", {"noise_beta": float("nan")}, r"planner\.noise_beta must be in \[0, 10\], got nan"),
    ("lr", {"lr": float("inf")}, r"planner\.lr must be > 0.* got inf"),
    ("var_scale", {"var_scale": float("nan")}, r"planner\.var_scale must be > 0"),
    ("cross_term", {"cross_term": 2}, r"planner\.cross_term must be in \[0, 1\], got 2"),
    (None, {"clip_actions": [0.9, 0.1]}, r"planner\.clip_actions must be true, false, or two .* got \[0\.9, 0\.1\]"),
    (None, {"clip_actions": [0.1]}, r"planner\.clip_actions must be true, false, or two quantiles.* got \[0\.1\]"),
    ("drop_every", {"drop_every": 0}, r"planner\.drop_every must be at least 1, got 0"),
    ("drop_every", {"drop_every": 5}, r"planner\.drop_every=5 has no effect on one start: raise planner\.num_starts"),
    ("lr_schedule", {"lr_schedule": "linear"}, r"planner\.lr_schedule must be one of constant, cosine, got 'linear'"),
    ("lr", {"lr": 0}, r"planner\.lr must be > 0.* got 0"),
    ("action_noise", {"action_noise": -1}, r"planner\.action_noise.* >= 0, got .*-1"),
    ("optimizer_type", {"optimizer_type": "lion"}, r"planner\.optimizer_type must be one of .*adamw, got 'lion'"),
    ("topk", {"topk": 10, "num_samples": 10}, r"planner\.topk must be .*below planner\.num_samples=10.* got 10"),
    ("topk", {"topk": 1}, r"planner\.topk must be at least 2.* got 1"),
    ("var_scale", {"var_scale": 0}, r"planner\.var_scale must be > 0, got 0"),
]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [(name, change, message) for name in OPEN_LOOP for key, change, message in WRONG if knows(name, key)],
)
def test_a_wrong_option_names_key_value_and_what_is_allowed(name, change, message):
    with pytest.raises(ValueError, match=message):
        type(build(name))(**change)


def test_random_actions_are_drawn_and_not_searched():
    planner, noise = build("random"), WitnessedNoise(seeds(3))
    start = planner.initial_actions(noise, space(0.1, 0.2))
    plan = planner.optimize(bowl(start + 1), start, noise)
    assert torch.equal(plan.actions, noise.given[0]) and len(noise.given) == 1
    assert torch.as_tensor(plan.evaluations).unique().tolist() == [1]


def test_a_misspelt_option_is_an_error(open_loop):
    with pytest.raises(TypeError, match="horizn"):
        type(build(open_loop))(horizn=4)


def test_open_loop_executes_the_whole_plan_once(open_loop):
    controller = MPCController.of(build(open_loop, horizon=4))
    assert (controller.max_iter, controller.n_taken_actions) == (1, 4)
    assert controller.planner.horizon == 4


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("mpc_")])
def test_closed_loops_are_controllers_of_a_planner(name):
    controller = instantiate(configured(name))
    assert isinstance(controller, MPCController)
    assert MPCController.of(controller) is controller
    assert isinstance(controller.planner, Planner)
    assert type(build(name.removeprefix("mpc_"))) is type(controller.planner)


def test_gradient_descent_is_exactly_its_optimiser():
    """Three steps of plain gradient descent by hand."""
    expected = torch.zeros_like(TARGET)
    steepness = torch.linspace(0.5, 2, TARGET.numel()).view_as(TARGET)
    for _ in range(3):
        expected = expected - 0.1 * 2 * steepness * (expected - TARGET)
    planner = build("gd", opt_steps=3, lr=0.1, action_noise=0.0, optimizer_type="sgd")
    found = planner.optimize(bowl(TARGET), torch.zeros_like(TARGET), EpisodeNoise(seeds(3))).actions
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.2), ("momentum", 0.02), ("adam", 0.1), ("adamw", 0.1)])
def test_every_optimiser_descends_to_the_minimum(optimizer, lr):
    planner = build("gd", opt_steps=200, lr=lr, action_noise=0.0, optimizer_type=optimizer)
    found = planner.optimize(bowl(TARGET), torch.zeros_like(TARGET), EpisodeNoise(seeds(3))).actions
    torch.testing.assert_close(found, TARGET, atol=0.02, rtol=0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_cosine_schedule_is_that_of_the_optimisers_rate(optimizer):
    """Against torch's optimisers under a changing rate, 1, 3/4 and 1/4 of it in three steps."""
    expected = torch.zeros_like(TARGET).requires_grad_()
    descent = OPTIMIZERS[optimizer]([expected], 0.1)
    visited = []
    for share in (1, 0.75, 0.25):
        descent.param_groups[0]["lr"] = 0.1 * share
        expected.grad = torch.autograd.grad(bowl(TARGET)(expected[:, None]).sum(), expected)[0]
        descent.step()
        visited.append(expected.detach().clone())
    seen = []

    def cost(actions):
        seen.append(actions[:, 0].detach().clone())
        return bowl(TARGET)(actions)

    planner = build("gd", opt_steps=3, lr=0.1, action_noise=0.0, optimizer_type=optimizer, lr_schedule="cosine")
    planner.optimize(cost, torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
    torch.testing.assert_close(torch.stack(seen[1:]), torch.stack(visited))


@pytest.mark.parametrize("name", ["gd", "gd_lbfgs"])
def test_the_worse_half_of_the_starts_is_dropped_and_the_others_go_on_as_before(name):
    """All that is visited is what is visited when none is dropped, by those that were lowest when it came to it."""

    def path(drop_every: int | None) -> tuple[list[torch.Tensor], list[torch.Tensor], Plan]:
        visited, costs = [], []

        def cost(actions):
            visited.append(actions.detach().clone())
            costs.append((1 + torch.sin(3 * actions + TARGET[:, None]) + (actions - TARGET[:, None]) ** 2).sum((2, 3)))
            return costs[-1]

        quiet = {"action_noise": 0.0} if name == "gd" else {}
        planner = build(name, opt_steps=9, num_starts=5, drop_every=drop_every, **quiet)
        return visited, costs, planner.optimize(cost, torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))

    every, costs, _ = path(None)
    some, _, plan = path(2)
    assert [candidates.shape[1] for candidates in some] == [5, 5, 3, 3, 2, 2, 1, 1, 1, 1]
    assert plan.evaluations.tolist() == [24] * 3 and plan.gradient_evaluations.tolist() == [23] * 3
    for all_of_them, kept in zip(every, some, strict=True):
        distance = torch.cdist(kept.flatten(2), all_of_them.flatten(2))
        assert distance.amin(2).max() < 1e-5
    best = torch.stack([value.detach() for value in costs[:2]]).amin(0) if name == "gd_lbfgs" else costs[1].detach()
    lowest = best.topk(3, 1, largest=False).indices.sort(1).values
    expected = every[2].gather(1, lowest[:, :, None, None].expand(-1, -1, 2, 2))
    torch.testing.assert_close(some[2], expected, atol=1e-5, rtol=0)


def test_noise_of_the_given_size_is_added_after_every_step():
    visited = []

    def flat(actions):  # nothing to descend: what moves is noise
        visited.append(actions.detach()[:, 0])
        return 0 * actions.sum((2, 3))

    planner = build("gd", opt_steps=4, lr=1.0, action_noise=0.5, optimizer_type="sgd")
    noise = WitnessedNoise(seeds(200))
    planner.optimize(flat, torch.zeros(200, 5, 10), noise)
    torch.testing.assert_close(visited[-1], 0.5 * torch.stack(noise.given).sum(0)[:, 0])
    assert abs(visited[-1].std() - 0.5 * 4**0.5) < 0.02


def test_the_cross_entropy_method_refits_mean_and_unbiased_deviation():
    """One iteration by hand."""
    planner = build("cem", opt_steps=2, num_samples=8, topk=3, var_scale=0.5)
    noise, seen = WitnessedNoise(seeds(3)), []

    def cost(actions):
        seen.append(actions.clone())
        return bowl(TARGET)(actions)

    planner.optimize(cost, torch.full_like(TARGET, 0.1), noise)
    samples = 0.1 + 0.5 * noise.given[0]
    samples[:, 0] = 0.1
    torch.testing.assert_close(seen[0], samples)
    for episode in range(3):
        elites = samples[episode, bowl(TARGET)(samples)[episode].argsort()[:3]]
        mean = elites.mean(0)
        std = ((elites - mean).square().sum(0) / 2).sqrt()
        torch.testing.assert_close(seen[1][episode, 0], mean)
        torch.testing.assert_close(seen[1][episode, 1:], mean + std * noise.given[1][episode, 1:])


def test_the_best_of_several_starts_is_kept():
    """Two valleys, the deeper one far from the first start: one start never sees it, many do."""
    far = torch.tensor([1.2, 1.2])

    def valleys(actions):
        near, deep = actions.square().sum(3), (actions - far).square().sum(3)
        return torch.minimum(near + 1, 2 * deep).sum(2)

    start = torch.zeros(3, 1, 2)
    one, many = (
        build("gd", opt_steps=100, lr=0.05, sample_type="zero", num_starts=n).optimize(
            valleys, start, EpisodeNoise(seeds(3))
        )
        for n in (1, 64)
    )
    torch.testing.assert_close(one.cost, torch.ones(3), atol=0.01, rtol=0)
    torch.testing.assert_close(many.actions, far.expand(3, 1, 2), atol=0.05, rtol=0)
    assert many.evaluations.tolist() == [64 * 101] * 3 and many.gradient_evaluations.tolist() == [64 * 100] * 3


def test_a_start_does_not_notice_the_others():
    """The first of several starts takes the path it takes alone."""
    paths = []
    for starts in (1, 4):
        visited = []

        def cost(actions, visited=visited):
            visited.append(actions[:, 0].detach().clone())
            return bowl(TARGET)(actions)

        planner = build("gd", opt_steps=5, action_noise=0.0, num_starts=starts)
        planner.optimize(cost, torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
        paths.append(torch.stack(visited))
    torch.testing.assert_close(*paths)


def test_clipped_actions_stay_within_the_range(open_loop):
    low, high = torch.tensor([-0.6, -0.3]), torch.tensor([0.2, 0.4])
    steepness, seen = torch.linspace(0.5, 2, TARGET.numel()).view_as(TARGET), []

    def cost(actions):
        seen.append(actions.detach())
        return (steepness[:, None] * (actions - TARGET[:, None]).square()).sum((2, 3))

    known = ActionSpace(torch.zeros(2), 2, low, high)
    plan = build(open_loop, clip_actions=True).optimize(cost, 0.5 * TARGET, EpisodeNoise(seeds(3)), known)
    assert all(bool(((actions >= low) & (actions <= high)).all()) for actions in seen)
    torch.testing.assert_close(plan.actions, TARGET.clamp(low, high), atol=0.1, rtol=0)


def test_clipping_without_a_range_is_an_error(open_loop):
    with pytest.raises(ValueError, match=r"planner\.clip_actions=true needs the range"):
        build(open_loop, clip_actions=True).optimize(bowl(TARGET), TARGET, EpisodeNoise(seeds(3)))


@pytest.mark.parametrize("extra", [0, 1, 37, 500])
def test_a_budget_of_evaluations_is_kept_and_used(open_loop, extra):
    """Never exceeded, and no step is left out that would have fitted; the best so far is returned."""
    shortest = int(re.search(r"takes (\d+) rollouts", str(too_small(open_loop))).group(1))
    budget, values, count = shortest + extra, [], 0

    def counted(actions):
        nonlocal count
        count += actions.shape[1]
        values.append(bowl(TARGET)(actions))
        return values[-1]

    planner = build(open_loop, budget_evals=budget, opt_steps=1000)
    plan = planner.optimize(counted, torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
    assert plan.evaluations.tolist() == [count] * 3 and count <= budget
    step = getattr(planner, "step_evaluations", shortest // 2 if open_loop == "gd" else shortest - 1)
    if open_loop != "cem_gd":  # it stops after its last gradient step
        assert count > budget - step
    assert torch.equal(plan.cost, torch.cat([v.detach() for v in values], 1).amin(1))


def in_flops(cost, plain: float, gradient: float):
    """The cost function, of rollouts that take so many TFLOP."""
    cost.rollout_flops = lambda _: RolloutFlops(plain * 1e12, gradient * 1e12)
    return cost


@pytest.mark.parametrize("extra", [0, 37])
def test_a_budget_of_operations_is_kept_and_used(open_loop, extra):
    """Where a gradient costs nothing it is a budget of rollouts; else it is never exceeded, and no step is left out."""

    def planned(*flops: float, **budget: float) -> Plan:
        planner = build(open_loop, opt_steps=1000, **budget)
        return planner.optimize(in_flops(bowl(TARGET), *flops), torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))

    planner = build(open_loop)
    gradients = planner.shortest_gradients or 0
    evals = planned(0.3, 0.0, budget_evals=planner.shortest + extra)
    flops = planned(0.3, 0.0, budget_tflops=0.3 * (planner.shortest + extra))
    assert torch.equal(evals.actions, flops.actions) and torch.equal(evals.evaluations, flops.evaluations)

    limit = 0.3 * planner.shortest + 0.6 * gradients + 0.3 * extra
    found = planned(0.3, 0.6, budget_tflops=limit)
    taken = 0.3 * found.evaluations.double() + 0.6 * found.gradient_evaluations.double()
    step = 0.3 * planner.step_evaluations + 0.6 * gradients
    assert (taken <= limit + 1e-6).all() and (taken > limit - step - (0.9 if open_loop == "cem_gd" else 0)).all()


def test_a_budget_of_operations_that_allows_no_step_is_refused(open_loop):
    planner = build(open_loop, budget_tflops=0.1)
    with pytest.raises(ValueError, match=r"planner\.budget_tflops=0\.1 does not allow one step, which takes .* TFLOP"):
        planner.optimize(in_flops(bowl(TARGET), 0.09, 0.2), torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
    with pytest.raises(ValueError, match="needs a cost with rollout_flops"):
        planner.optimize(bowl(TARGET), torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))


def test_both_halves_of_cem_gd_get_their_share_of_a_budget():
    for budget, expected in ((66, (1, 1)), (300, (2, 171)), (1000, (7, 551))):
        planner = build("cem_gd", budget_evals=budget, opt_steps=100, grad_steps=1000)
        plan = planner.optimize(bowl(TARGET), torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
        evaluations, gradients = int(plan.evaluations[0]), int(plan.gradient_evaluations[0])
        assert ((evaluations - gradients - 1) // 64, gradients) == expected
        assert evaluations == budget


def too_small(name: str) -> Exception:
    with pytest.raises(InstantiationException) as caught:
        build(name, budget_evals=1)
    return caught.value


@pytest.mark.parametrize("budget", [50, 200])
def test_a_budget_of_time_is_kept_and_used(open_loop, budget, monkeypatch):
    """On a clock that only rollouts move: at most the first step, and what must be evaluated at the end, exceed it."""
    now = 0.0
    monkeypatch.setattr("planning.planners.search.time", SimpleNamespace(perf_counter=lambda: now))

    def slow(actions):
        nonlocal now
        now += 0.001 * (1 + actions.shape[1] / 100)
        return bowl(TARGET)(actions)

    planner = build(open_loop, budget_ms=budget, opt_steps=10000)
    planner.optimize(slow, torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))  # the first plan warms up
    now = 0.0
    plan = planner.optimize(slow, torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
    assert (0.4 if open_loop == "cem_gd" else 0.7) * budget < 1000 * now <= budget + 1e-6
    assert plan.trace[-1][0] > 1
    assert plan.cost.max() < bowl(TARGET)(torch.zeros_like(TARGET)[:, None]).max()


def test_the_first_step_is_taken_however_small_the_budget(open_loop):
    plan = build(open_loop, budget_ms=1e-6).optimize(bowl(TARGET), torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
    assert plan.trace[-1][0] >= 1
    assert plan.actions.isfinite().all()


def test_momentum_keeps_a_share_of_the_old_mean():
    planner = build("cem", opt_steps=2, num_samples=8, topk=3, momentum=0.25)
    noise, seen = WitnessedNoise(seeds(3)), []

    def cost(actions):
        seen.append(actions.clone())
        return bowl(TARGET)(actions)

    start = torch.full_like(TARGET, 0.1)
    planner.optimize(cost, start, noise)
    best = bowl(TARGET)(seen[0]).topk(3, dim=1, largest=False).indices
    elites = seen[0].gather(1, best[:, :, None, None].expand(-1, -1, 2, 2))
    torch.testing.assert_close(seen[1][:, 0], 0.25 * start + 0.75 * elites.mean(1))
    deviation = 0.25 * torch.ones_like(start) + 0.75 * elites.std(1)
    torch.testing.assert_close(seen[1][:, 1:], seen[1][:, :1] + deviation[:, None] * noise.given[1][:, 1:])


def test_elites_that_are_kept_compete_again_without_another_rollout():
    """A second iteration that finds nothing better chooses the first one's elites once more."""
    calls = []

    def cost(actions):
        calls.append(actions.shape[1])
        return bowl(TARGET)(actions) + (1000 if len(calls) == 2 else 0)

    means = []
    for keep in (0, 3):
        calls.clear()
        seen = []

        def witnessed(actions, seen=seen):
            seen.append(actions.clone())
            return cost(actions)

        build("cem", opt_steps=2, num_samples=8, topk=3, keep_elites=keep).optimize(
            witnessed, torch.zeros_like(TARGET), EpisodeNoise(seeds(3))
        )
        assert calls == [8, 8, 1]
        means.append((seen[1][:, 0], seen[2][:, 0]))
    assert not torch.allclose(*means[0])
    torch.testing.assert_close(*means[1])


def test_mppi_listens_to_the_best_sample_at_a_low_temperature():
    planner = build("mppi", opt_steps=1, temperature=1e-6, cross_term=0.0, num_samples=16)
    noise, seen = WitnessedNoise(seeds(3)), []

    def cost(actions):
        seen.append(actions.clone())
        return bowl(TARGET)(actions)

    planner.optimize(cost, torch.zeros_like(TARGET), noise)
    best = bowl(TARGET)(noise.given[0]).argmin(1)
    torch.testing.assert_close(seen[1][:, 0], noise.given[0][torch.arange(3), best])


def test_a_relative_temperature_does_not_feel_the_scale_of_the_cost():
    plans = [
        build("mppi", opt_steps=2, cross_term=0.0)
        .optimize(lambda a, s=scale: s * bowl(TARGET)(a), torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
        .actions
        for scale in (1.0, 1000.0)
    ]
    torch.testing.assert_close(*plans, atol=1e-4, rtol=0)


def test_a_slow_first_rollout_or_a_hiccup_does_not_end_the_search(open_loop, monkeypatch):
    """What a process does once is off the clock, and one slow step among quick ones says nothing of the next."""
    now, calls = 0.0, 0
    monkeypatch.setattr("planning.planners.search.time", SimpleNamespace(perf_counter=lambda: now))

    def cost(actions):
        nonlocal now, calls
        calls += 1
        now += {1: 0.16, 21: 0.06}.get(calls, 0.001)
        return bowl(TARGET)(actions)

    further = {"grad_steps": 10000} if open_loop == "cem_gd" else {}
    planner = build(open_loop, budget_ms=300, opt_steps=10000, **further)
    planner.optimize(cost, torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
    assert 0.16 + 0.25 < now <= 0.16 + 0.3 + 0.06


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_samples_without_a_finite_cost_do_not_spoil_the_others(open_loop, bad):
    """Some candidates of the first episode fail in every step; it still gets near its optimum, and so do the others."""

    def broken(actions):
        cost = bowl(TARGET)(actions)
        fails = actions[:, :, 0, 0].detach() > 0.9
        fails[1:] = False
        return torch.where(fails, cost * 0 + bad, cost)

    plan = build(open_loop).optimize(broken, torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
    torch.testing.assert_close(plan.actions, TARGET, atol=0.05, rtol=0)
    assert all(value[1:].isfinite().all() for _, value in plan.trace)


def test_one_start_that_fails_does_not_hide_the_others_in_the_trace():
    def broken(actions):
        cost = bowl(TARGET)(actions)
        failing = torch.zeros_like(cost, dtype=torch.bool)
        failing[:, 1:2] = cost.shape[1] > 1
        return torch.where(failing, cost * 0 + torch.nan, cost)  # cost * nan would spoil all gradients

    planner = build("gd", num_starts=4, opt_steps=5, eval_every=1)
    plan = planner.optimize(broken, torch.zeros_like(TARGET), EpisodeNoise(seeds(3)))
    assert all(value.isfinite().all() for _, value in plan.trace)
