import pytest
import torch

from planning.planners.noise import AHEAD, EpisodeNoise, coloured


def test_an_episode_draws_the_same_whatever_stands_beside_it():
    together, alone = EpisodeNoise([4, 9, 2]), EpisodeNoise([9])
    for shape in ((5, 10), (3,), (2, 7, 1)):
        assert torch.equal(together.randn(*shape)[1:2], alone.randn(*shape))


def test_draws_go_on_and_do_not_repeat():
    noise = EpisodeNoise([1])
    assert not torch.equal(noise.randn(5), noise.randn(5))


def test_streams_of_a_batch_differ():
    drawn = EpisodeNoise.derive(99, [1, 100, 199], 0, "cpu").randn(50)
    assert len(drawn.unique(dim=0)) == 3


def test_seed_episode_and_iteration_each_make_another_stream():
    drawn = {
        tuple(EpisodeNoise.derive(seed, [episode], iteration, "cpu").randn(3)[0].tolist())
        for seed in (0, 1, 99)
        for episode in (0, 1, 100)
        for iteration in (0, 1, 2)
    }
    assert len(drawn) == 27


def test_deriving_twice_gives_the_same():
    first, second = (EpisodeNoise.derive(99, [1, 100], 4, "cpu").randn(8) for _ in range(2))
    assert torch.equal(first, second)


def test_seeds_of_any_size_are_taken():
    assert EpisodeNoise.derive(2**40, [2**33], 10**6, "cpu").randn(2).isfinite().all()


def test_the_numbers_are_standard_normal():
    drawn = EpisodeNoise.derive(0, range(300), 0, "cpu").randn(100)
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 1) < 0.02


@pytest.mark.parametrize("most", [1, AHEAD - 1, 2 * AHEAD + 3])
def test_drawing_ahead_gives_the_same_numbers_one_after_the_other(most):
    one_by_one, ahead, blocks = (EpisodeNoise([4, 9]) for _ in range(3))
    expected = [one_by_one.randn(3, 2) for _ in range(most)]
    assert torch.equal(torch.stack(list(ahead.ahead(most, 3, 2))), torch.stack(expected))
    assert torch.equal(blocks._draw(most, (3, 2)), torch.stack(expected))  # as it travels to a GPU


def test_no_global_random_state_is_used_or_changed():
    torch.manual_seed(0)
    first = EpisodeNoise([3]).randn(4)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    assert torch.equal(EpisodeNoise([3]).randn(4), first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_nothing_can_be_drawn_too():
    assert EpisodeNoise([1, 2]).randn(0, 10).shape == (2, 0, 10)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 4.0])
def test_coloured_noise_has_unit_variance_and_the_asked_for_spectrum(beta):
    white = EpisodeNoise(range(4)).randn(2000, 5, 10)
    noise = coloured(white, beta, 2)
    assert noise.shape == white.shape
    assert abs(noise.var() - 1) < 0.03
    raw = noise.unflatten(-1, (5, 2)).flatten(2, 3)  # 25 raw steps of two entries
    power = torch.fft.rfft(raw, dim=2).abs().square().mean((0, 1, 3))[1:]
    frequency = torch.fft.rfftfreq(25)[1:]
    slope = torch.linalg.lstsq(torch.stack([frequency.log(), torch.ones(12)], 1), power.log()[:, None]).solution[0]
    assert abs(slope + beta) < 0.1


def test_white_noise_stays_what_it_was():
    white = EpisodeNoise(range(2)).randn(3, 5, 10)
    torch.testing.assert_close(coloured(white, 0.0, 2), white, atol=1e-5, rtol=0)


def test_the_entries_of_an_action_are_coloured_apart():
    white = torch.zeros(1, 1, 4, 6)
    white[..., ::3] = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    noise = coloured(white, 2.0, 3)
    assert noise[..., ::3].abs().min() > 0
    assert noise[..., 1::3].abs().max() == noise[..., 2::3].abs().max() == 0
