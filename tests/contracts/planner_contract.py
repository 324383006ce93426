"""What every planner must do, as checks that take a function that makes one; see ``planning.planners.base.Planner``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from planning.cost import LatentGoalCost
from planning.objectives import GoalDistance
from planning.planners.base import Planner
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import ActionSpace, CostFn, Plan, RolloutFlops
from tests.builders import bare_model, global_generators, latent_of, numbers

MakePlanner = Callable[..., Planner]
"""Makes a planner of a config; keyword arguments change settings that all planners have."""
SEEDS = (3, 8, 13)
ACTION_DIM = 2
STEPS = 10
BEFORE_ROUNDING = {"atol": 1e-4, "rtol": 1e-4}


class Bowl:
    """Convex costs of some of three problems, each with a minimum of its own; counts what it is asked for.

    Args:
        planner: Says how long plans are.
        rows: Numbers of the problems.
    """

    def __init__(self, planner: Planner, rows: Sequence[int] = (0, 1, 2)) -> None:
        self.target = 2 * numbers(len(SEEDS), planner.horizon, ACTION_DIM)[list(rows)]
        self.steepness = torch.tensor([0.5, 1.0, 2.0])[list(rows), None]
        self.evaluations, self.gradient_evaluations = torch.zeros(2, len(rows), dtype=torch.long)

    def rollout_flops(self, horizon: int) -> RolloutFlops:
        return RolloutFlops(1e12, 2e12)

    def __call__(self, actions: Tensor, problems: Tensor | None = None) -> Tensor:
        chosen = torch.arange(len(self.target)) if problems is None else problems
        batch, steps = len(chosen), actions.shape[-2]
        assert actions.ndim == 4 and len(actions) == batch and actions.shape[3] == ACTION_DIM, (
            f"candidates are (B, N, T, A) with B={batch} and A={ACTION_DIM}, got {tuple(actions.shape)}"
        )
        self.evaluations[chosen] += actions.shape[1]
        if torch.is_grad_enabled() and actions.requires_grad:
            self.gradient_evaluations[chosen] += actions.shape[1]
        away = actions - self.target[chosen][:, None, :steps]
        return self.steepness[chosen] * away.square().sum((2, 3))


def initial(planner: Planner, seeds: Sequence[int] = SEEDS, horizon: int | None = None) -> tuple[Tensor, EpisodeNoise]:
    """Where a planner begins, and the noise that it goes on with."""
    noise = EpisodeNoise(seeds)
    return planner.initial_actions(noise, space_of(planner, torch.zeros(ACTION_DIM), seeds), horizon=horizon), noise


def space_of(planner: Planner, zero: Tensor, seeds: Sequence[int] = SEEDS) -> ActionSpace:
    """What a planner knows of actions: with a proposal, if it begins with one."""
    asks = planner.sample_type == "proposal"
    drawn = [numbers(planner.horizon, len(zero), seed=seed) for seed in seeds] if asks else None
    return ActionSpace(zero, ACTION_DIM, proposal=None if drawn is None else torch.stack(drawn))


def check_outcome(plan: Plan, cost: CostFn, start: Tensor) -> None:
    """A plan has the right shape, is finite, costs what it says, and no more than ``start``."""
    assert plan.actions.shape == start.shape, (
        f"a plan has the shape of its initial actions, {tuple(start.shape)}, got {tuple(plan.actions.shape)}"
    )
    assert plan.cost.shape == start.shape[:1], f"there is a cost for each problem, got {tuple(plan.cost.shape)}"
    assert plan.actions.isfinite().all() and plan.cost.isfinite().all(), "plans and their costs are finite"
    assert not any(each.requires_grad for each in (plan.actions, plan.cost, *(value for _, value in plan.trace))), (
        "a plan carries no graph: detach it"
    )
    with torch.no_grad():
        found, before = (cost(actions[:, None]).squeeze(1) for actions in (plan.actions, start))
    torch.testing.assert_close(
        plan.cost, found, **BEFORE_ROUNDING, msg=lambda text: f"the cost of a plan is that of its actions: {text}"
    )
    assert (plan.cost <= before + 1e-4).all(), (
        f"a plan costs no more than the initial actions, got {plan.cost.tolist()} from {before.tolist()}"
    )
    assert all(value.shape == plan.cost.shape for _, value in plan.trace), "the trace has a cost for each problem"


def check_initial_actions(make: MakePlanner) -> None:
    """Initial actions are as long as was asked for, and begin with what is left of the last plan."""
    planner = make()
    space = space_of(planner, torch.ones(4))
    left_over = numbers(3, planner.horizon - 1, 4)
    completed = planner.initial_actions(EpisodeNoise(SEEDS), space, left_over)
    assert initial(planner)[0].shape == (3, planner.horizon, ACTION_DIM), "initial actions are (B, horizon, A)"
    assert completed.shape == (3, planner.horizon, 4) and completed.isfinite().all()
    assert torch.equal(completed[:, :-1], left_over), "initial actions begin with the rest of the last plan"
    longer = numbers(3, planner.horizon + 2, 4)
    shortened = planner.initial_actions(EpisodeNoise(SEEDS), space, longer)
    assert torch.equal(shortened, longer[:, : planner.horizon]), "a longer rest is cut to the horizon"


def check_plan(make: MakePlanner) -> None:
    """Under a convex cost a plan is no worse than its start, which stays as it is; shorter plans are made, too."""
    planner = make(opt_steps=STEPS)
    for horizon in {1, planner.horizon}:
        start, noise = initial(planner, horizon=horizon)
        kept, cost = start.clone(), Bowl(planner)
        check_outcome(planner.optimize(cost, start, noise), cost, start)
        assert torch.equal(start, kept) and not start.requires_grad, "the initial actions are not written to"


def check_world_model(make: MakePlanner) -> None:
    """The same under a world model, whose weights are left alone, also where gradients are switched off."""
    planner, model = make(opt_steps=2), bare_model(num_hist=2)
    space, noise = space_of(planner, torch.zeros(4)), EpisodeNoise(SEEDS)
    start, goal = latent_of(3, 1, model=model), latent_of(3, 1, model=model, seed=1)
    actions = planner.initial_actions(noise, space)
    cost = LatentGoalCost(model, GoalDistance(), start, torch.empty(3, 0, 4), goal, planner.rollout)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            check_outcome(planner.optimize(cost, actions, noise, space), cost, actions)
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters()), (
        "weights are left alone: no gradients, no requires_grad_"
    )


def check_independence(make: MakePlanner) -> None:
    """A problem gets the same plan alone, among others, and in another place."""
    planner = make(opt_steps=STEPS)

    def plans(rows: Sequence[int]) -> Tensor:
        start, noise = initial(planner, [SEEDS[row] for row in rows])
        return planner.optimize(Bowl(planner, rows), start, noise).actions

    together = plans([0, 1, 2])
    for rows in ([2, 0, 1], [1], [2, 1]):
        difference = (plans(rows) - together[rows]).abs().max().item()
        assert difference < 1e-4, (
            f"a problem's plan must not depend on those beside it: problems {rows} of 0, 1, 2 get plans that differ "
            f"by {difference:.2g} from those among all; draw from `noise`, and sum over no problems"
        )


def check_seeds(make: MakePlanner) -> None:
    """The same seeds give the same plan, whatever the global generators are at; they are left alone."""
    planner, plans = make(opt_steps=STEPS), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = global_generators()
        start, noise = initial(planner)
        plans.append(planner.optimize(Bowl(planner), start, noise).actions)
        assert global_generators() == before, "no global random number is drawn: draw from `noise`"
    assert torch.equal(*plans), "the same seeds give the same plan: draw from `noise`"


def check_range(make: MakePlanner) -> None:
    """With ``clip_actions`` only actions of the data set's range are looked at."""
    low, high = torch.tensor([-0.6, -0.3]), torch.tensor([0.2, 0.4])
    planner = make(clip_actions=True, opt_steps=STEPS)
    bowl = Bowl(planner)

    def cost(actions: Tensor) -> Tensor:
        inside = (actions >= low) & (actions <= high)
        assert inside.all(), "with clip_actions=true candidates lie within the range: search.clip"
        return bowl(actions)

    start, noise = initial(planner)
    plan = planner.optimize(cost, start, noise, ActionSpace(torch.zeros(ACTION_DIM), ACTION_DIM, low, high))
    check_outcome(plan, cost, start.clamp(low, high))


def check_budget(make: MakePlanner) -> None:
    """Rollouts are counted, and are never more than ``budget_evals`` or ``budget_tflops`` allow."""
    for extra in (None, 0, 1, 37):
        limit = None if extra is None else make().shortest + extra
        planner = make(opt_steps=STEPS if limit is None else 1000, budget_evals=limit)
        cost = Bowl(planner)
        plan = planner.optimize(cost, *initial(planner))
        check_counts(plan, cost)
        differentiated = bool(cost.gradient_evaluations.any())
        assert differentiated <= planner.differentiates, "a planner that asks for gradients sets differentiates = True"
        done = int(cost.evaluations.max())
        assert limit is None or done <= limit, (
            f"planner.budget_evals={limit} is kept, got {done} rollouts: let search.steps count the steps"
        )
    planner = make(opt_steps=1000, budget_tflops=3.0 * (make().shortest + 37))
    cost = Bowl(planner)
    planner.optimize(cost, *initial(planner))
    taken = (cost.evaluations + 2 * cost.gradient_evaluations).max()
    assert taken <= planner.budget.tflops, "planner.budget_tflops is kept: let search.steps count the steps"


def check_counts(plan: Plan, cost: Bowl) -> None:
    """A plan says how many rollouts ``cost`` saw of each problem."""
    said, done = [[each.evaluations.tolist(), each.gradient_evaluations.tolist()] for each in (plan, cost)]
    assert said == done, f"rollouts (all, differentiated) are counted: the plan says {said}, the cost saw {done}"


def check_early_stop(make: MakePlanner) -> None:
    """With ``stop_gain`` a problem that gains nothing takes fewer rollouts, and no problem notices the others."""

    def plan(rows: Sequence[int], **settings: float) -> Plan:
        planner = make(opt_steps=STEPS, **settings)
        cost = Bowl(planner, rows)
        cost.steepness *= torch.tensor([1.0, 0.0, 1.0])[list(rows), None]  # nothing can be gained in the second
        found = planner.optimize(cost, *initial(planner, [SEEDS[row] for row in rows]))
        check_counts(found, cost)
        return found

    stops = {"stop_gain": 0.01, "stop_steps": 2}
    together, without = plan([0, 1, 2], **stops), plan([0, 1, 2])
    if without.trace[-1][0] > 3:  # steps; some planners take none
        assert together.evaluations[1] < without.evaluations[1], "what stalls is not evaluated: count by search.steps"
    assert (together.evaluations <= without.evaluations).all()
    for rows in ([1], [2, 0]):
        alone = plan(rows, **stops)
        assert torch.equal(alone.evaluations, together.evaluations[rows]), "when a problem stops is its own affair"
        torch.testing.assert_close(alone.actions, together.actions[rows], **BEFORE_ROUNDING)


def check_failing_costs(make: MakePlanner) -> None:
    """What costs no number is never chosen, and where nothing makes a difference the plan stays finite."""
    planner = make(opt_steps=3)
    bowl, (start, noise) = Bowl(planner), initial(planner)

    def failing(actions: Tensor) -> Tensor:
        cost = bowl(actions)
        return torch.where((actions - start[:, None]).sum((2, 3)) > 0.5, cost * torch.nan, cost)

    def flat(actions: Tensor) -> Tensor:
        assert actions.isfinite().all(), "where nothing makes a difference candidates stay finite"
        return 0 * bowl(actions) + 0.5

    for cost in (failing, flat):
        plan = planner.optimize(cost, start, noise)
        assert plan.cost.isfinite().all() and plan.actions.isfinite().all(), "what costs no number is never chosen"


CHECKS = (
    check_initial_actions,
    check_plan,
    check_world_model,
    check_independence,
    check_seeds,
    check_range,
    check_budget,
    check_early_stop,
    check_failing_costs,
)
