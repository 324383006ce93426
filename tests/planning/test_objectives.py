import pytest
import torch

from models.latent import Latent
from planning.objectives import GoalDistance
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
        ({"mode": "first"}, r"objective\.mode must be one of last, all, got 'first'"),
        ({"alpha": -0.1}, r"objective\.alpha must be >= 0, got -0\.1"),
        ({"mode": "all", "base": 0.0}, r"objective\.base must be > 0, got 0"),
        ({"mode": "last", "base": 2.0}, r"objective\.base=2\.0 has no effect with objective\.mode=last"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_settings_name_key_value_and_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        GoalDistance(**arguments)


@pytest.mark.parametrize("mode", ["last", "all"])
def test_a_rollout_in_bf16_is_compared_in_float32(mode, rollout, goal):
    """Else costs would have 8 bits, and most candidates of a search the same one."""
    narrow = Latent(rollout.visual.bfloat16(), rollout.proprio.bfloat16())
    wide = Latent(narrow.visual.float(), narrow.proprio.float())
    found = GoalDistance(mode)(narrow, goal)
    assert found.dtype == torch.float32
    assert torch.equal(found, GoalDistance(mode)(wide, goal))
