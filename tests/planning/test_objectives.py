import pytest
import torch

from models.latent import Latent
from planning.objectives import REPLANNED, SETTINGS, GoalDistance
from tests.builders import numbers


@pytest.fixture
def rollout() -> Latent:
    return Latent(numbers(4, 6, 3, 5), numbers(4, 6, 2, seed=1))


@pytest.fixture
def goal() -> Latent:
    return Latent(numbers(4, 1, 3, 5, seed=2), numbers(4, 1, 2, seed=3))


def distances(rollout: Latent, goal: Latent, alpha: float) -> torch.Tensor:
    """(B, T + 1) of every frame, element by element."""
    rows = []
    for b in range(4):
        row = []
        for t in range(6):
            visual = sum(
                (rollout.visual[b, t, p, d] - goal.visual[b, 0, p, d]) ** 2 for p in range(3) for d in range(5)
            )
            proprio = sum((rollout.proprio[b, t, e] - goal.proprio[b, 0, e]) ** 2 for e in range(2))
            row.append(visual / 15 + alpha * proprio / 2)
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
def test_last_looks_at_the_final_frame_only(rollout, goal, alpha):
    expected = distances(rollout, goal, alpha)
    torch.testing.assert_close(GoalDistance("last", alpha)(rollout, goal), expected[:, -1])


@pytest.mark.parametrize("base", [0.5, 1.0, 2.0])
def test_all_weights_every_frame_and_divides_by_their_number(rollout, goal, base):
    expected = distances(rollout, goal, 0.7)
    weights = torch.tensor([base**t for t in range(6)])
    weighted = sum(expected[:, t] * weights[t] / weights.sum() for t in range(6)) / 6
    torch.testing.assert_close(GoalDistance("all", 0.7, base)(rollout, goal), weighted)


def test_half_of_the_released_weight_sits_on_the_present(rollout, goal):
    """Base 0.5 over 6 frames: 51 % on the frame that no action changes, 1.6 % on the final one."""
    cost = GoalDistance("all", 0.0, 0.5)
    values = []
    for frame in (0, 5):
        moved = rollout.visual.clone()
        moved[:] = goal.visual
        moved[:, frame] += 1
        values.append(cost(Latent(moved, rollout.proprio), goal)[0].item() * 6)
    assert values == pytest.approx([0.508, 0.0159], abs=1e-3)


def test_later_frames_count_more_by_default(rollout, goal):
    assert torch.equal(GoalDistance("all")(rollout, goal), GoalDistance("all", base=2.0)(rollout, goal))


def test_at_the_goal_the_cost_is_zero_and_each_row_has_its_own(rollout, goal):
    there = goal.map(lambda part: part.expand(-1, 6, *part.shape[2:]).clone())
    there.visual[2, -1, 0, 0] += 1
    assert GoalDistance()(there, goal).tolist() == pytest.approx([0, 0, 1 / 15, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "first"}, r"objective\.mode must be one of last, all, .*, auto, got 'first'"),
        ({"alpha": -0.1}, r"objective\.alpha must be >= 0 and finite, got -0\.1"),
        ({"mode": "all", "base": 0.0}, r"objective\.base must be > 0 and finite, got 0"),
        ({"mode": "last", "base": 2.0}, r"objective\.base=2\.0 has no effect with objective\.mode=last; use .*=all or"),
        ({"mode": "auto", "base": 0.5}, r"objective\.base=0\.5 has no effect with objective\.mode=auto"),
        ({"mode": "all", "temperature": 1}, r"objective\.temperature=1 has no effect .*; use objective=soft_min"),
        ({"mode": "soft_min", "temperature": 0}, r"objective\.temperature must be > 0 and finite, got 0"),
        ({"mode": "soft_min", "alpha": float("inf")}, r"objective\.alpha must be >= 0 and finite, got inf"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_settings_name_key_value_and_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        GoalDistance(**arguments)


@pytest.mark.parametrize("mode", SETTINGS)
def test_a_rollout_in_bf16_is_compared_in_float32(mode, rollout, goal):
    """Else costs would have 8 bits, and most candidates of a search the same one."""
    narrow = Latent(rollout.visual.bfloat16(), rollout.proprio.bfloat16())
    wide = Latent(narrow.visual.float(), narrow.proprio.float())
    found = GoalDistance(mode)(narrow, goal)
    assert found.dtype == torch.float32
    assert torch.equal(found, GoalDistance(mode)(wide, goal))


def weighted(rollout, goal, weights):
    return sum(distances(rollout, goal, 1.0)[:, t] * weight for t, weight in enumerate(weights))


@pytest.mark.parametrize("base", [0.5, 2.0])
def test_without_the_first_frame_costs_differ_by_a_factor_and_what_no_action_changes(rollout, goal, base):
    """So no planner decides otherwise: Adam, L-BFGS and the order of samples know neither factor nor constant."""
    with_it, without = (GoalDistance("all", 1.0, base, first)(rollout, goal) for first in (None, False))
    powers = torch.tensor([base**t for t in range(6)])
    torch.testing.assert_close(without, weighted(rollout, goal, [0, *(powers[1:] / powers[1:].sum() / 5)]))
    constant = distances(rollout, goal, 1.0)[:, 0] / powers.sum() / 6
    factor = powers.sum() * 6 / powers[1:].sum() / 5
    torch.testing.assert_close(without, factor * (with_it - constant))


def test_staged_is_last_until_the_horizon_was_executed_and_then_all(rollout, goal):
    staged = GoalDistance("staged", 0.5, 0.5)
    modes = [staged.at(executed, 5, 1).mode for executed in range(7)]
    assert modes == ["last"] * 5 + ["all"] * 2
    assert torch.equal(staged.at(5, 5, 1)(rollout, goal), GoalDistance("all", 0.5, 0.5)(rollout, goal))
    assert torch.equal(staged(rollout, goal), GoalDistance("last", 0.5)(rollout, goal)), "outside of a loop"


@pytest.mark.parametrize(("executed", "first"), [(0, 5), (1, 4), (4, 1), (5, 1), (9, 1)])
def test_a_deadline_counts_the_frames_from_the_first_plans_end_on(rollout, goal, executed, first):
    weights = [float(t >= first) / (6 - first) for t in range(6)]
    torch.testing.assert_close(
        GoalDistance("deadline").at(executed, 5, 1)(rollout, goal), weighted(rollout, goal, weights)
    )


def away(*steps: float) -> Latent:
    """One rollout (1, T + 1) whose frames are so far from a goal at zero."""
    return Latent(torch.tensor(steps).view(1, -1, 1, 1), torch.zeros(1, len(steps), 1))


def soft(*steps: float, temperature: float = 0.3) -> float:
    return GoalDistance("soft_min", temperature=temperature)(away(*steps), away(0.0)).item()


def test_a_soft_minimum_wants_to_arrive_early_and_to_stay():
    stays, late, passes = soft(3, 2, 0, 0, 0), soft(3, 2, 2, 2, 0), soft(3, 2, 0, 2, 3)
    assert stays < late < passes
    assert soft(3, 0, 0, 0, 0) < stays
    # cold, only the best arrival counts, so that dawdling costs nothing; hot, every arrival counts alike
    assert soft(3, 2, 2, 2, 0, temperature=1e-3) == pytest.approx(soft(3, 0, 0, 0, 0, temperature=1e-3), abs=0.02)
    suffixes = [(4 + 4 + 0 + 1) / 4, (4 + 0 + 1) / 3, (0 + 1) / 2, 1]
    assert soft(3, 2, 2, 0, 1, temperature=100) == pytest.approx(sum(suffixes) / 4, rel=1e-2)


def test_a_soft_minimum_knows_no_scale_and_stays_finite_at_the_goal():
    assert soft(30, 20, 10, 0) == pytest.approx(100 * soft(3, 2, 1, 0), rel=1e-5)
    there = away(0.0, 0.0, 1.0)
    there.visual.requires_grad_()
    cost = GoalDistance("soft_min")(there, away(0.0))
    assert torch.autograd.grad(cost.sum(), there.visual)[0].isfinite().all()


def test_auto_is_last_where_plans_are_carried_out_and_the_measured_default_elsewhere(rollout, goal):
    auto = GoalDistance("auto", 0.5)
    assert str(auto.at(0, 5, 5)) == "last, alpha 0.5"
    default = GoalDistance(alpha=0.5, **REPLANNED)
    for executed in (0, 7):
        assert str(auto.at(executed, 5, 1)) == str(default.at(executed, 5, 1)) != "last, alpha 0.5"
    assert torch.equal(auto(rollout, goal), GoalDistance("last", 0.5)(rollout, goal)), "outside of a loop"


def test_it_names_its_mode_and_settings():
    named = ["all, base 2, first_frame 0, alpha 1", "soft_min, temperature 0.1, alpha 3"]
    assert [str(GoalDistance("all", first_frame=False)), str(GoalDistance("soft_min", 3, temperature=0.1))] == named
