"""Orders that depend on nothing but seed, epoch and position."""

import pytest

from datasets.sampler import ResumableSampler


def epoch(sampler, number, start=0):
    sampler.set_epoch(number, start)
    return list(sampler)


def test_an_epoch_visits_samples_once_and_drops_the_rest():
    batches = epoch(ResumableSampler(23, 5, seed=0), 0)
    visited = [number for batch in batches for number in batch]
    assert [len(batch) for batch in batches] == [5] * 4
    assert len(set(visited)) == 20 and set(visited) <= set(range(23))


def test_the_last_batch_can_be_kept():
    sampler = ResumableSampler(23, 5, seed=0, drop_last=False)
    batches = epoch(sampler, 0)
    assert sorted(number for batch in batches for number in batch) == list(range(23))
    assert len(batches) == len(sampler) == 5


def test_resuming_yields_what_was_left():
    whole = epoch(ResumableSampler(40, 4, seed=7), 3)
    resumed = ResumableSampler(40, 4, seed=7)
    assert epoch(resumed, 3, start=6) == whole[6:]
    assert len(resumed) == 4
    assert epoch(resumed, 3, start=10) == []


def test_order_depends_on_seed_and_epoch_and_on_nothing_else():
    orders = {
        (seed, number): tuple(map(tuple, epoch(ResumableSampler(40, 4, seed), number)))
        for seed in range(3)
        for number in range(3)
    }
    assert len(set(orders.values())) == 9
    used = ResumableSampler(40, 4, seed=1)
    epoch(used, 0)
    assert tuple(map(tuple, epoch(used, 2))) == orders[1, 2]


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="batch_size"):
        ResumableSampler(3, 4, seed=0)
    with pytest.raises(ValueError, match="start_batch"):
        ResumableSampler(40, 4, seed=0).set_epoch(0, 11)
