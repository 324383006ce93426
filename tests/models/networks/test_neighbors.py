"""The bank of the data's frames: which pair is nearest, against a search by hand; what is kept, and for how long."""

import pytest
import torch

from models.latent import Latent
from models.networks import neighbors
from models.networks.neighbors import Neighbors
from tests.builders import numbers

SIZES = (3, 4, 2, 6)  # patches, features, proprio, action block
ZERO = torch.arange(6.0)


def frames(*leading, seed=0):
    return Latent(numbers(*leading, 3, 4, seed=seed), numbers(*leading, 2, seed=seed + 50))


def bank(count=4, length=5, **changes):
    """A bank that has seen some trajectories, and what was in them."""
    made = Neighbors(*SIZES, **{"horizon": 3, "max_frames": 64, "alpha": 0.5} | changes)
    seen, actions = frames(count, length), numbers(count, length, 6, seed=9)
    number = 100 * torch.arange(count)[:, None] + torch.arange(length)
    made.remember(seen, actions, number, ZERO)
    return made, seen, actions


def distance(a, b, alpha=0.5):
    return (a.visual - b.visual).square().mean() + alpha * (a.proprio - b.proprio).square().mean()


@pytest.mark.parametrize("farthest", [None, 4])
def test_the_nearest_pairs_are_those_of_a_search_by_hand(farthest):
    made, seen, actions = bank(farthest=farthest)
    start, goal = frames(2, 1, seed=1), frames(2, 1, seed=2)
    found = made.candidates(start, goal, 5)
    for row in range(2):
        ranked = []
        for number in range(4):
            for first in range(4):
                ends = range(first + 1, min(4, first + (farthest or 3)) + 1)
                costs = [
                    distance(seen[number, first], start[row, 0]) + distance(seen[number, end], goal[row, 0])
                    for end in ends
                ]
                best = min(range(len(costs)), key=costs.__getitem__)
                done = [actions[number, first + step] if step <= best else ZERO for step in range(3)]
                ranked.append((costs[best].item(), torch.stack(done)))
        ranked.sort(key=lambda pair: pair[0])
        torch.testing.assert_close(found[row], torch.stack([blocks for _, blocks in ranked[:5]]))


def test_asked_about_its_own_data_it_says_what_was_done():
    made, seen, actions = bank()
    blocks = made(seen[:, 1:2], seen[:, 3:4])
    assert torch.equal(blocks[:, :2], actions[:, 1:3]) and torch.equal(blocks[:, 2], ZERO.expand(4, -1))


def test_many_questions_are_answered_a_few_at_a_time(monkeypatch):
    made, *_ = bank()
    start, goal = frames(7, 1, seed=1), frames(7, 1, seed=2)
    whole = made.candidates(start, goal, 2)
    monkeypatch.setattr(neighbors, "AT_A_TIME", 2 * 64)
    assert torch.equal(made.candidates(start, goal, 2), whole)


def test_every_frame_is_kept_once_until_the_bank_is_full():
    made, seen, actions = bank(max_frames=25)
    number = 100 * torch.arange(4)[:, None] + torch.arange(5)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    made.remember(seen, 2 * actions, number, ZERO)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    twice = torch.cat([number + 2, number + 2])  # from the third frame on, in both halves of the batch
    more = frames(8, 5, seed=3)
    made.remember(more, numbers(8, 5, 6, seed=4), twice, ZERO)
    assert made.num_frames == 25 and made.numbers.unique().numel() == 25
    assert torch.equal(made.numbers, made.numbers.sort().values)
    kept = torch.isin(made.numbers, number.flatten())
    assert torch.equal(made.keys[kept], before["keys"][:20]), "what was there stays"
    assert {5, 6} <= set(made.numbers.tolist()), "new frames continue a trajectory"


def test_hashed_distances_are_right_on_average():
    made = Neighbors(16, 64, 2, 6, key_dim=128, max_frames=4)
    a, b = (Latent(numbers(1, 200, 16, 64, seed=s), torch.zeros(1, 200, 2)) for s in (1, 2))
    true = (a.visual - b.visual).square().mean((2, 3))
    ratio = (made._keys(a) - made._keys(b)).square().sum(2) / true
    assert ratio.mean().item() == pytest.approx(1, abs=0.03) and ratio.std() < 0.2


def test_before_it_has_seen_anything_it_does_nothing():
    made = Neighbors(*SIZES, max_frames=4)
    assert not made(frames(2, 1), frames(2, 1, seed=1)).any()


@pytest.mark.parametrize("key", ["horizon", "max_frames", "key_dim"])
def test_sizes_that_mean_nothing_are_named(key):
    with pytest.raises(ValueError, match=rf"proposal\.{key} must be at least 1, got 0"):
        Neighbors(*SIZES, **{key: 0})
