"""Episodes have seeds of their own, and seed 99 those of the published protocol."""

import itertools

import numpy as np
import pytest

from envs.episode_seeds import episode_generator, episode_seeds


def test_the_published_seeds():
    assert episode_seeds(99, 4) == [1, 100, 199, 298]


@pytest.mark.parametrize("seed", [0, 1, 2, 99, 12345])
def test_every_episode_has_a_seed_of_its_own(seed):
    assert len(set(episode_seeds(seed, 300))) == 300
    assert episode_seeds(seed, 10) == episode_seeds(seed, 300)[:10]  # more episodes do not change the first ones


@pytest.mark.parametrize(("seed", "count"), [(-1, 5), (3, 0), (2**31, 50), (99, 2**32)])
def test_seeds_that_cannot_be_are_refused(seed, count):
    with pytest.raises(ValueError, match=rf"got seed={seed}, n_evals={count}"):
        episode_seeds(seed, count)


def test_seeds_share_no_episode():
    seeds = [episode_seeds(seed, 300) for seed in (0, 1, 2, 3, 98, 99, 100, 12345, 2**31 - 1)]
    drawn = [[episode_generator(each).randint(2**62) for each in some] for some in seeds]
    for kind in (seeds, drawn):
        for one, other in itertools.combinations(kind, 2):
            assert not set(one) & set(other)


def test_published_seeds_keep_their_generator():
    assert episode_generator(298).randint(2**31) == np.random.RandomState(298).randint(2**31)
