"""Every rule that sorts a failed episode, and where its thresholds come from."""

from dataclasses import replace

import pytest

from planning.diagnosis.rules import Facts, Thresholds, reason

LIMITS = Thresholds(near=0.1, gain=0.2)
UNDECIDED = Facts(
    way="the known actions",
    tried=0,
    nearest=float("nan"),
    plans=4,
    hopeful=0,
    came_true=0,
    imagined=0.5,
    true=0.6,
    away=7.0,
    cost=1.0,
    best_cost=0.9,
    best="a longer search",
    best_true_cost=0.95,
    true_cost=1.0,
    way_cost=1.5,
    way_true_cost=1.0,
)
"""In reach, nothing promised, nothing much better known, and the way no better in the simulator."""

CASES = {
    "nothing is known to reach it": ({"way": None, "tried": 288, "nearest": 2.5}, "out of reach", "288 action"),
    "out of reach comes before all": (
        {"way": None, "hopeful": 2, "best_cost": 0.1},
        "out of reach",
        "nothing is known",
    ),
    "promised, and far in latents": ({"hopeful": 1, "imagined": 0.05}, "model", "carried out it is 0.6 and 7 away"),
    "a broken promise comes before a better plan": ({"hopeful": 1, "best_cost": 0.1}, "model", "1 of 4 plans"),
    "promised and true, yet far": ({"hopeful": 1, "true": 0.09}, "distance", "0.09 in latents, yet 7 away"),
    "a clearly better plan": ({"best_cost": 0.79}, "search", "the best that is known under the same model 0.79"),
    "a better plan in the model alone": ({"best_cost": 0.5, "best_true_cost": 1.1}, "model", "is led astray"),
    "not clearly better": ({"best_cost": 0.81}, "distance", "even the simulator does not prefer them"),
    "kept promises that were given up": ({"hopeful": 2, "came_true": 1}, "distance", "1 of 4 plans would have"),
    "the way costs less in truth alone": ({"way_true_cost": 0.7}, "model", "ranks them the wrong way round"),
}


@pytest.mark.parametrize(("changes", "why", "evidence"), CASES.values(), ids=CASES)
def test_rules(changes, why, evidence):
    found, said = reason(replace(UNDECIDED, **changes), LIMITS)
    assert found == why and evidence in said


def test_thresholds_come_from_solved_episodes():
    limits = Thresholds.of([0.1 * n for n in range(1, 12)], [0.0, 1.0])
    assert limits.near == pytest.approx(1.0) and limits.gain == pytest.approx(0.9)
    assert limits.clear(10.0) == pytest.approx(0.9) and limits.clear(100.0) == pytest.approx(5.0)


def test_without_solved_episodes_nothing_is_near_and_shares_decide():
    limits = Thresholds.of([], [])
    assert limits.near < 0 and limits.clear(1.0) == pytest.approx(0.05)
