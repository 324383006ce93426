import numpy as np
import pytest

from utils import statistics
from utils.statistics import (
    crossed_interval,
    mcnemar,
    mean_interval,
    median_interval,
    paired_difference,
    wilson_interval,
)  # fmt: skip


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(46, 50, 0.812, 0.968), (0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (5, 10, 0.237, 0.763), (81, 263, 0.255, 0.366)],
)
def test_known_intervals(successes, trials, low, high):
    """92 % of 50 is 81-97 %; the others are textbook values (the last one is Newcombe's 1998)."""
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=6e-4)


def test_the_interval_holds_the_true_rate_in_19_of_20_cases():
    random = np.random.default_rng(0)
    held = []
    for rate in (0.1, 0.5, 0.92):
        for successes in random.binomial(50, rate, 2000):
            low, high = wilson_interval(int(successes), 50)
            held.append(low <= rate <= high)
    assert 0.93 < np.mean(held) < 0.97


def test_more_trials_narrow_the_interval():
    widths = [high - low for low, high in (wilson_interval(n // 2, n) for n in (10, 100, 1000))]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match=f"got {successes} of {trials}"):
        wilson_interval(successes, trials)


def pairs(both: int, gained: int, lost: int, neither: int) -> tuple[list[bool], list[bool]]:
    first = [True] * both + [False] * gained + [True] * lost + [False] * neither
    second = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return first, second


def test_a_paired_difference_by_hand():
    difference, low, high = paired_difference(*pairs(both=20, gained=12, lost=3, neither=15))
    assert difference == pytest.approx(0.18)
    up, down = 12.5 / 52, 3.5 / 52
    half = 1.959964 * ((up + down - (up - down) ** 2) / 52) ** 0.5
    assert (low, high) == pytest.approx((up - down - half, up - down + half))
    assert low > 0  # 12 against 3 is more than chance


def test_exchanging_the_two_turns_the_sign():
    first, second = pairs(20, 12, 3, 15)
    difference, low, high = paired_difference(first, second)
    assert paired_difference(second, first) == pytest.approx((-difference, -high, -low))


def test_no_difference_still_has_an_interval():
    difference, low, high = paired_difference([True] * 10, [True] * 10)
    assert difference == 0
    assert low < 0 < high


def test_it_stays_within_plus_and_minus_one():
    assert paired_difference([False] * 3, [True] * 3)[2] <= 1
    assert paired_difference([True] * 3, [False] * 3)[1] >= -1


def test_the_paired_interval_holds_the_true_difference():
    random = np.random.default_rng(1)
    held = []
    for _ in range(2000):
        drawn = random.choice(4, 50, p=[0.4, 0.25, 0.1, 0.25])  # both, gained, lost, neither: the difference is 0.15
        _, low, high = paired_difference((np.isin(drawn, [0, 2])).tolist(), (np.isin(drawn, [0, 1])).tolist())
        held.append(low <= 0.15 <= high)
    assert 0.93 < np.mean(held) < 0.98


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False])])
def test_lists_that_are_no_pairs_are_refused(first, second):
    with pytest.raises(ValueError, match=f"got {len(first)} and {len(second)}"):
        paired_difference(first, second)


def test_crossed_intervals_cover_rows_and_columns():
    """Simulated models and episodes that both differ: the interval holds the true mean about as often as it says."""
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values = 0.3 * generator.standard_normal((12, 1)) + generator.standard_normal((1, 60))
        values = values + generator.standard_normal((12, 60))
        mean, low, high = crossed_interval(values, draws=1000)
        assert low <= mean <= high
        covered += low <= 0 <= high
    assert 180 <= covered <= 200  # of 190 expected


def test_crossed_intervals_are_wider_than_those_that_call_everything_independent():
    generator = np.random.default_rng(0)
    hard = generator.random(100) < 0.5  # every model fails on the same episodes
    values = np.repeat(hard[None], 3, 0).astype(float)
    _, low, high = crossed_interval(values)
    assert high - low > 0.9 * np.subtract(*wilson_interval(int(hard.sum()), 100)[::-1])
    assert high - low > 1.5 * np.subtract(*wilson_interval(3 * int(hard.sum()), 300)[::-1])


def test_a_bootstrap_of_thousands_of_episodes_is_drawn_in_parts_that_change_nothing(monkeypatch):
    values = np.random.default_rng(0).random((3, 300))
    whole = crossed_interval(values, draws=500, seed=5)
    statistics._drawn_counts.cache_clear()
    monkeypatch.setattr(statistics, "HELD", 7 * 300)
    assert crossed_interval(values, draws=500, seed=5) == whole
    generator = np.random.default_rng(5)
    of_rows, of_columns = (generator.multinomial(n, np.full(n, 1 / n), 500) / n for n in (3, 300))
    low, high = np.quantile(((of_rows @ values) * of_columns).sum(1), (0.025, 0.975))
    assert whole[1:] == (low, high)


def test_the_exact_test_of_thousands_of_pairs_is_quick_and_right():
    assert mcnemar(0, 5) == 2 / 32 and mcnemar(3, 3) == 1.0
    assert mcnemar(4800, 5200) == pytest.approx(6.6e-5, rel=0.01)  # 2 (1 - Phi(3.99)), corrected for whole numbers


def test_a_table_without_spread_is_not_certain():
    assert crossed_interval(np.ones((3, 100))) == (1.0, *wilson_interval(100, 100))
    assert crossed_interval(np.full((3, 4), 0.25), is_rate=False) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("columns", [20, 50, 100, 200])
def test_equal_outcomes_are_no_difference(columns):
    mean, low, high = crossed_interval(np.zeros((3, columns)), is_rate=False)
    assert mean == 0 and low == -high < 0
    assert crossed_interval(np.zeros((3, columns)))[1] == 0.0


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,)])
def test_an_empty_table_is_refused(shape):
    with pytest.raises(ValueError, match="needs a table"):
        crossed_interval(np.zeros(shape))


@pytest.mark.parametrize(("count", "quantile"), [(2, 12.706), (3, 4.3027), (6, 2.5706), (11, 2.2281), (31, 2.0423)])
def test_the_mean_of_a_few_values_has_students_interval(count, quantile):
    values = [1.0, 3.0] * (count // 2) + [2.0] * (count % 2)
    mean, low, high = mean_interval(values)
    expected = quantile * np.std(values, ddof=1) / np.sqrt(count)
    assert mean == pytest.approx(2.0)
    assert (high - low) / 2 == pytest.approx(expected, rel=2e-3)


def test_one_value_says_nothing_of_its_spread():
    assert mean_interval([2.0])[0] == 2.0
    assert np.isnan(mean_interval([2.0])[1:]).all()
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


@pytest.mark.parametrize(
    ("only", "p"), [((0, 0), 1.0), ((0, 5), 0.0625), ((5, 0), 0.0625), ((3, 3), 1.0), ((2, 10), 0.0386)]
)
def test_the_exact_test_of_pairs_counts_those_that_differ(only, p):
    assert mcnemar(*only) == pytest.approx(p, abs=1e-4)


def test_a_median_lies_between_two_of_the_values():
    assert median_interval([3.0]) == (3.0, 3.0, 3.0)
    assert median_interval(list(range(1, 101))) == (50.5, 41, 60)
    assert median_interval([2.0, 1.0, 2.0, 9.0]) == (2.0, 1.0, 9.0)
    with pytest.raises(ValueError, match="at least one value"):
        median_interval([])


def test_the_interval_of_a_median_holds_it_in_19_of_20_cases():
    drawn = np.random.default_rng(0).normal(size=(1000, 40))
    held = [low <= 0 <= high for _, low, high in map(median_interval, drawn.tolist())]
    assert 0.93 < np.mean(held) < 0.98
