"""What a report says of results that are made up."""

import json

import numpy as np
import pytest

from experiments import figures, tables, wording
from experiments.inputs import changed, digests
from experiments.outcomes import refuse_other_episodes
from experiments.report import FILENAME, Report
from experiments.result import Findings
from experiments.run import write_episodes
from experiments.terminal import as_text
from tests.experiments import tiny
from tests.published import figure_digest
from utils.pages import digest
from utils.reading.opening import FileError

ALL, NONE = [5] * 20, [0] * 20


@pytest.fixture
def study():
    return tiny.study("x", ceiling=False)


@pytest.fixture
def better(study):
    """A model b that is better with gd, and like a with cem."""
    cost = {"rollouts": 10.0, "tflop": 2.0, "planning_seconds": 0.5}
    dear = {"rollouts": 100.0, "tflop": 8.0, "planning_seconds": 1.0}
    half = [5, 0] * 10
    return tiny.report(
        study,
        tiny.result("a", "gd", NONE, cost=cost, final=[False] * 20),
        tiny.result("b", "gd", ALL, cost=cost, final=[True] * 15 + [False] * 5),
        tiny.result("a", "cem", half, cost=dear),
        tiny.result("b", "cem", [*half[1:], 0], cost=dear),
    )


def test_rows_have_the_numbers_of_their_results(better):
    row = better.rows[2]
    assert (row.model, row.planner, row.episodes) == ("b", "gd", 20) or better.rows[1].model == "b"
    row = next(row for row in better.rows if (row.model, row.planner) == ("b", "gd"))
    assert (row.success.mean, row.final.mean, row.steps_to_success.median) == (1.0, 0.75, 5)
    assert row.success.low == pytest.approx(0.839, abs=1e-3), "Wilson"
    assert row.floors.nothing.mean == 0.05 and row.floors.expert is None
    assert row.cost.tflop.total == 2.0 and row.cost.peak_memory_gb is None


def test_pairs_have_an_interval_an_exact_test_and_a_verdict(better):
    pairs = {(pair.of, pair.first, pair.second, pair.with_): pair for pair in better.pairs}
    clear, same = pairs["models", "b", "a", "gd"], pairs["models", "b", "a", "cem"]
    assert (clear.verdict, clear.only_first, clear.only_second) == ("better", 20, 0)
    assert clear.difference.mean == 1.0 and clear.p == pytest.approx(2 / 2**20)
    assert (same.verdict, same.only_first, same.only_second, same.p) == ("not distinguishable", 9, 10, 1.0)
    assert pairs["planners", "cem", "gd", "a"].verdict == "better"
    assert pairs["planners", "cem", "gd", "b"].verdict == "worse"


def test_a_factor_is_compared_with_the_same_episodes_without_it():
    found = tiny.report(
        tiny.study("x", ceiling=False, vary=["colour", "camera"]),
        *(
            tiny.result("a", "gd", solved, goals=goals)
            for goals, solved in (("no variation", ALL), ("colour", [5, *NONE[1:]]), ("camera", ALL))
        ),
    )
    colour, camera = found.pairs
    assert (colour.of, colour.first, colour.second, colour.with_) == ("factors", "colour", "no variation", "gd, a")
    assert (colour.difference.mean, colour.only_second, colour.verdict) == (-0.95, 19, "worse")
    assert camera.verdict == "not distinguishable" and found.goals["colour"].control == "no variation"
    said = "Of all variations colour costs most: -95 points with gd, a; 1 of 2 differences from no variation"
    assert any(sentence.startswith(said) for sentence in found.answer)
    text = tables.as_markdown(found)
    assert "| colour | 5 [1, 24] | 5 [1, 24]; **-95 [" in text and "### Success, colour" not in text
    assert "no variation   5 [1, 24]" in as_text(found)


def test_an_interval_alone_is_no_verdict_where_the_exact_test_does_not_agree(study):
    # five to none: the interval leaves out 0, the exact test has p = 1/16
    found = tiny.report(study, tiny.result("a", "gd", NONE), tiny.result("b", "gd", [5] * 5 + [0] * 15))
    (pair,) = found.pairs
    assert pair.p == 0.0625 and pair.verdict == "not distinguishable"


def test_the_answer_is_three_sentences_that_follow_from_the_numbers(better):
    best, models, planners = better.answer
    assert best.startswith("Most is solved by gd with b: 100 % [84, 100] of 20 episodes; doing nothing solves 5 %")
    assert models == "b against a is better with gd (+100 points) and not distinguishable with 1 of 2 planners."
    assert planners.startswith("cem against gd is better with a (+50 points) and worse with b (-")
    assert planners.endswith("per episode cem takes 4 times the TFLOP of gd.")


def test_an_unfavourable_result_is_said(study):
    found = tiny.report(study, tiny.result("a", "gd", ALL), tiny.result("b", "gd", NONE))
    assert "b against a is worse with gd (-100 points)." in found.answer
    nothing = tiny.report(study, tiny.result("a", "gd", NONE))
    assert nothing.answer[0] == "No planner solves any of 20 episodes with any model."
    assert tiny.report(study).answer == ["No evaluation is finished yet."]


def test_what_cannot_be_told_apart_is_said_once():
    study = tiny.study("x", models={name: f"x/{name}" for name in "abc"}, ceiling=False)
    results = [tiny.result(model, "gd", ALL) for model in "ab"]
    assert tiny.report(study, *results, tiny.result("c", "gd", ALL)).answer[1] == (
        "None of 3 pairs of models is distinguishable with any planner."
    )
    found = tiny.report(study, *results, tiny.result("c", "gd", NONE))
    assert found.answer[1] == (
        "c against a is worse with gd (-100 points); c against b is worse with gd (-100 points); "
        "b against a is not distinguishable with gd."
    )


def test_seeds_are_pairs_too_and_their_interval_covers_them():
    study = tiny.study("x", models={"a": ["x/1", "x/2", "x/3"], "b": "x/4"}, ceiling=False)
    luck = np.random.default_rng(0).random((3, 40))
    results = [tiny.result("a", "gd", np.where(luck[s] < 0.5 + 0.1 * s, 5, 0).tolist(), seed=s) for s in range(3)]
    found = tiny.report(study, *results, tiny.result("b", "gd", [0] * 40))
    (row, _), (pair,) = found.rows, found.pairs
    assert row.seeds == [0, 1, 2] and len(row.success.each) == 3 and row.success.low < 0.6 < row.success.high
    assert pair.difference.mean == pytest.approx(-row.success.mean) and pair.p is None and pair.verdict == "worse"


def test_training_seeds_are_compared_with_the_same_seeds_only():
    study = tiny.study("x", models={"a": ["x/1", "x/2"], "b": ["x/3", "x/4"]}, ceiling=False)
    first, second = tiny.result("a", "gd", ALL), tiny.result("a", "gd", ALL, seed=1)
    assert not tiny.report(study, first, tiny.result("b", "gd", NONE, seed=1)).pairs
    assert not tiny.report(study, first, second, tiny.result("b", "gd", NONE, seed=1)).pairs, "the other is to come"
    assert len(tiny.report(study, first, tiny.result("b", "gd", NONE)).pairs) == 1


def test_an_older_result_leaves_blank_what_it_does_not_say(study):
    found = tiny.report(study, tiny.result("a", "gd", ALL, floors={}, episodes=None))
    assert found.rows[0].final is None and found.rows[0].cost.tflop.total is None
    text = as_text(found)
    assert "TFLOP" not in text and "at the end" not in text and "100 % of 20" in text


def test_text_and_markdown_show_rows_verdicts_and_answer(better):
    text, page = as_text(better), tables.as_markdown(better)
    assert "b against a, with gd:" in text and "better" in text and "p 1.9e-06" in text
    for sentence in better.answer:
        assert sentence in text and sentence in page
    assert "| gd | 5 [1, 24] | 0 [0, 16] | 100 [84, 100] |" in page
    assert "| gd | **+100 [" in page and "| cem | -5 [" in page
    assert "| cem | b | 1.000 | 100 |" in page


@pytest.mark.parametrize(
    ("difference", "text"),
    [(0.05, "+5"), (-0.005, "-0.5"), (0.0004, "+0.04"), (0.0, "+0"), (-0.0, "+0"), (-1e-17, "+0"), (-0.014, "-1")],
)
def test_a_difference_has_the_sign_that_it_has(difference, text):
    assert wording.signed(difference) == text


def test_other_episodes_are_an_error_that_names_both():
    one, other = tiny.result("a", "gd", ALL), tiny.result("b", "gd", ALL, episodes="other")
    with pytest.raises(ValueError, match=r"a \(seed 0\) with gd and b \(seed 0\) with gd met different episodes; run"):
        refuse_other_episodes([one, other], "run again")


def test_a_report_comes_back_as_it_was_written_and_not_otherwise(better, tmp_path):
    better.write(tmp_path)
    path = tmp_path / FILENAME
    assert Report.read(path).as_json() == better.as_json()
    data = json.loads(path.read_text())
    assert data["schema"] == 1 and data["digest"] == digest({k: v for k, v in data.items() if k != "digest"})
    path.write_text(path.read_text().replace('"planner": "gd"', '"planner": "gdd"'))
    with pytest.raises(FileError, match=r"report\.json was changed after it was written"):
        Report.read(path)
    path.write_text('{"schema": 7}')
    with pytest.raises(FileError, match="is a report of schema 7, not 1"):
        Report.read(path)


def test_inputs_that_changed_or_went_are_named(tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text("x")
    inputs = digests(tmp_path, [tmp_path / name for name in ("one", "two", "three", "none")])
    (tmp_path / "two").write_text("y")
    (tmp_path / "three").unlink()
    assert changed(tmp_path, inputs) == ["two", "three"]


def test_figures_name_the_numbers_that_they_show(better, tmp_path):
    drawn = figures.draw_all(better, f"{tmp_path}/")
    assert drawn == ["success", "seconds", "tflop", "rollouts"], "no gap was measured"
    for name in drawn:
        assert figure_digest(tmp_path / f"{name}.png") == digest(better.as_json())
        assert digest(better.as_json()) in (tmp_path / f"{name}.svg").read_text()


def test_every_episode_is_a_line(tmp_path):
    failure = {"model": "a", "planner": "gd", "goals": "as configured", "seed": 0}
    failure["sorted"] = [{"episode": 1, "why": "search"}]
    found = Findings(results=[tiny.result("a", "gd", [10, 0], final=[True, False])], why=[failure])
    write_episodes(tmp_path / "episodes.csv", found, tmp_path)
    head, one, two = (line.split(",") for line in (tmp_path / "episodes.csv").read_text().splitlines())
    assert dict(zip(head, one, strict=True))["solved_at_step"] == "10"
    assert (two[head.index("solved")], two[head.index("final")], two[-1]) == ("0", "0", "search")
