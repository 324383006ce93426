"""What is kept of a training seed, and published."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.build import Builder
from experiments.outcomes import Outcomes, findings_of
from experiments.publish import FOLDER, publish, refuse_unpublishable
from launch.provenance import Provenance
from tests.experiments import tiny
from tests.experiments.test_shorthand import TRAINED
from utils.pages import write_numbers
from utils.reading.opening import FileError

ABOUT = {"date": "2026-01-01", "revision": "abc", "versions": "torch 9, python 3"}
ERRORS = {"plain": {"plain": {"dataset": 0.1, "planner": 0.4}, "plain + more": {"dataset": 0.1, "planner": 0.2}}}


def study(tmp_path, **changed):
    return tiny.study("x", **TRAINED, collect=["env=wall"], ceiling=False, folder=str(tmp_path / "tiny"), **changed)


def outcomes(seed: int, plain: list[int], more: list[int]) -> Outcomes:
    cost = {"rollouts": 8.0, "planning_seconds": 0.5}
    results = [
        tiny.result("plain", "few", plain, seed=seed, cost=cost, final=[step > 0 for step in plain]),
        tiny.result("plain", "fewer", more[:2], seed=seed, cost=cost),
        tiny.result("plain + more", "few", more, seed=seed, cost=cost),
    ]
    return Outcomes(seed, ABOUT, results, ERRORS)


def test_outcomes_come_back_as_they_were_written(tmp_path):
    both = [outcomes(seed, [0, 5, 0, 15], [5, 10, 5, 0]) for seed in (0, 1)]
    for one in reversed(both):
        one.write(tmp_path)
    assert Outcomes.read(tmp_path) == both
    lines = (tmp_path / "seed_1.csv").read_text().splitlines()
    assert lines[0].split(",")[1:3] == ["plain | few | as configured | step", "plain | few | as configured | final"]
    assert lines[2:4] == ["1,5,1,10,10", "2,0,0,,5"]
    (tmp_path / "seed_1.csv").unlink()
    with pytest.raises(FileError, match=r"seed_1.json and the .csv beside it are not a study's outcomes"):
        Outcomes.read(tmp_path)


def test_outcomes_of_the_first_format_are_read_and_an_episode_at_step_0_is_not_solved(tmp_path):
    cost = {"seconds": 0.5, "evaluations": 8.0, "gradients": 4.0, "nothing": 0.25}
    numbers = {
        "seed": 0,
        "made": ABOUT,
        "episodes": {"few": "0123"},
        "cost": {"plain": {"few": cost}},
        "errors": ERRORS,
        "training_seconds": {"plain": 1.0},
    }
    write_numbers(tmp_path / "seed_0.json", numbers)
    (tmp_path / "seed_0.csv").write_text("episode,plain | few\n0,-1\n1,5\n2,0\n3,10\n")
    (found,) = Outcomes.read(tmp_path)
    (result,) = found.results
    assert result.solved.tolist() == [0, 1, 0, 1] and result.floors == {"nothing": 1.0}
    assert result.cost == {"planning_seconds": 0.5, "rollouts": 8.0, "gradients": 4.0} and found.errors == ERRORS


def test_seeds_that_met_different_episodes_are_not_averaged(tmp_path):
    outcomes(0, [5], [5]).write(tmp_path)
    other = outcomes(1, [5], [5])
    replace(other, results=[replace(result, episodes="other") for result in other.results]).write(tmp_path)
    with pytest.raises(FileError, match=r"plain \(seed 0\) with few and plain \(seed 1\) with few met different"):
        Outcomes.read(tmp_path)


def test_seeds_with_another_number_of_episodes_are_named(tmp_path):
    outcomes(0, [5], [5]).write(tmp_path)
    outcomes(1, [5, 0], [5, 0]).write(tmp_path)
    with pytest.raises(
        FileError, match=r"plain with few: seed 0 met 1 episodes, seed 1 met 2 episodes; delete the old"
    ):
        Outcomes.read(tmp_path)


def test_a_report_is_made_of_all_seeds(tmp_path):
    both = [outcomes(seed, [0, 5, 0, 15], [5, 10, 5, 0]) for seed in (0, 1)]
    report = Builder(study(tmp_path), findings_of(both)).report(tiny.MADE)
    rates = {(row.model, row.planner): row.success for row in report.rows}
    assert rates["plain", "few"].mean == 0.5 and rates["plain + more", "few"].each == [0.75, 0.75]
    assert [gap.ratio for gap in report.gap] == [4.0, 2.0]
    # of the two episodes that both planners met one solves the second, the other both
    pair = next(pair for pair in report.pairs if pair.of == "planners")
    assert (pair.first, pair.second, pair.difference.mean) == ("fewer", "few", 0.5)


def test_taking_a_study_apart_by_seeds_is_undone_by_putting_it_together(tmp_path):
    both = [outcomes(seed, [0, 5], [5, 10]) for seed in (0, 1)]
    again = list(Outcomes.of(findings_of(both), [0, 1], ABOUT))
    assert again == both
    assert findings_of(again).errors["plain"]["plain"]["planner"].tolist() == [[0.4], [0.4]]
    assert isinstance(findings_of(both).errors["plain"]["plain"]["planner"], np.ndarray)


def test_only_the_seeds_of_the_config_are_published_and_only_from_committed_code(tmp_path, monkeypatch):
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("no markers")
    with pytest.raises(ValueError, match="no page has the lines <!-- begin generated: tiny -->"):
        refuse_unpublishable(tmp_path, study(tmp_path), must_run=False)
    page.write_text("Before.\n<!-- begin generated: tiny -->\nof last year\n<!-- end generated: tiny -->\nAfter.\n")
    monkeypatch.setattr("experiments.publish.revision", lambda: "abc-dirty")
    refuse_unpublishable(tmp_path, study(tmp_path), must_run=False)
    with pytest.raises(ValueError, match=r"publish=true: .* at revision abc-dirty, .*commit what has changed"):
        refuse_unpublishable(tmp_path, study(tmp_path), must_run=True)
    for seed in (0, 1):
        outcomes(seed, [0, 5], [5, 5]).write(tmp_path / "outcomes")
    publish(tmp_path, study(tmp_path, seeds=[1]), tmp_path / "outcomes")
    assert {path.name for path in (tmp_path / FOLDER / "tiny").iterdir()} == {"seed_1.csv", "seed_1.json"}
    text = page.read_text()
    assert text.startswith("Before.\n<!--") and text.endswith("-->\nAfter.\n") and "of last year" not in text
    assert "revision abc" in text and "| few | 50 [9, 91] | 50 [9, 91] | 100 [34, 100] |" in text


def test_a_study_without_training_is_not_published(tmp_path):
    with pytest.raises(ValueError, match="publish=true: outcomes are published of studies that collect their data"):
        refuse_unpublishable(tmp_path, tiny.study("x"), must_run=False)


def test_a_seed_may_be_run_at_a_later_revision_than_the_data_but_not_with_changed_files(tmp_path):
    Provenance(["abc", "def"], "2026-01-01", 1.0).require_committed(tmp_path)
    for code in ("def-dirty", "unknown"):
        with pytest.raises(ValueError, match=f"run at revision abc and {code}; .* must come from committed revisions"):
            Provenance(["abc", code], "2026-01-01", 1.0).require_committed(tmp_path)
