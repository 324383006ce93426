import json
import re

import pytest

from demo.publish import blocks, publish
from demo.report import Report
from launch.provenance import Provenance
from tests.published import figure_digest, read_block
from utils.pages import digest, read_numbers

ENVIRONMENT = {"torch": "2.15.0", "revision": "of the report", "cpu": "some", "python": "3.11.7"}
MADE = Provenance(["abc"], "2026-11-30", 321.0)


def metrics(solved):
    rate = sum(at > 0 for at in solved) / len(solved)
    return {
        "n_evals": len(solved),
        "success_rate": rate,
        "success_rate_low": max(0.0, rate - 0.2),
        "success_rate_high": min(1.0, rate + 0.2),
        "do_nothing_rate": 0.15,
        "do_nothing_rate_low": 0.05,
        "do_nothing_rate_high": 0.36,
        "solved_at_start_rate": 0.1,
        "solved_at": solved,
        "unsolved_starts_only": True,
        "planning_seconds_per_episode": 0.25,
        "model_evaluations_per_episode": 1234.0,
    }


def results(online_solved, online_error):
    base = [1, 0] * 10
    return {
        "base": {"seconds": 3.0, "folder": "x"},
        "base_GD": metrics(base),
        "online_GD": metrics(online_solved),
        "gap": {
            "base": {"dataset": {"visual_mse": [0.1, 0.2]}, "planner": {"visual_mse": [1.0, 2.0]}},
            "online": {"dataset": {"visual_mse": [0.1, 0.2]}, "planner": {"visual_mse": online_error}},
        },
    }


def report(tmp_path, online_solved, online_error):
    config = {
        "env": "wall",
        "seed": 0,
        "n_evals": 20,
        "num_workers": 2,
        "finetune": {"common": [], "online": []},
        "evaluate": {"common": [], "GD": []},
    }
    return Report(config, results(online_solved, online_error), tmp_path, ["python train.py a=1"], ENVIRONMENT, MADE)


def test_numbers_are_those_of_the_stages(tmp_path):
    made = report(tmp_path, [1] * 20, [0.5, 1.0])
    text = made.as_text()
    assert re.search(r"GD +base +50 % of 20 .* 15 % \[5 - 36\] +10 %", text)
    assert re.search(r"GD +online +100 % of 20 .* \+50 \[", text)
    assert re.search(r"base +0\.1500 .*1\.5000 .* 10\.0\n", text)
    assert "online is better than the base" in text
    assert "0.50 times" in text


def test_an_unfavourable_result_is_said(tmp_path):
    text = report(tmp_path, [0] * 20, [3.0, 6.0]).as_text()
    assert "online is worse than the base" in text
    assert "3.00 times" in text
    same = report(tmp_path, [1, 0] * 10, [1.0, 2.0]).as_text()
    assert "online is not distinguishable from the base" in same


def test_the_page_stands_alone(tmp_path):
    report(tmp_path, [1] * 20, [0.5, 1.0]).write()
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page), "everything is embedded"
    assert page.count("data:image/png;base64,") >= 3
    assert "python train.py a=1" in page and "2.15.0" in page and "+50" in page
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["scores"][1]["difference"][0] == 0.5
    assert numbers["gap"][1]["ratio"] == pytest.approx(5.0)
    assert numbers["environment"] == ENVIRONMENT | {"revision": "abc"}, "that of the stages"
    assert figure_digest(tmp_path / "gap.png") == digest(numbers)


def test_publishing_makes_the_pages_and_their_figures_from_the_numbers_that_it_keeps(tmp_path):
    (tmp_path / "docs").mkdir()
    page, readme = tmp_path / "docs" / "demo.md", tmp_path / "README.md"
    for each, name in ((page, "demo_wall"), (readme, "demo_wall_summary")):
        each.write_text(f"Before.\n<!-- begin generated: {name} -->\nold\n<!-- end generated: {name} -->\nAfter.\n")
    made = report(tmp_path / "demo", [1] * 20, [0.5, 1.0])
    publish("demo_wall", made.described(), tmp_path)
    kept = read_numbers(tmp_path / "docs" / "published" / "demo_wall.json")
    for (path, name), text in blocks("demo_wall", kept).items():
        assert read_block(tmp_path / path, name) == text
    for each in (page, readme):
        assert each.read_text().startswith("Before.\n<!--") and each.read_text().endswith("-->\nAfter.\n")
        assert "old" not in each.read_text()
    assert made.as_text() in page.read_text()
    assert "`make demo`, 2026-11-30, revision abc: 5.3 minutes with 2 stages" in page.read_text()
    assert "unsolved_starts_only=true." in page.read_text()
    assert "| base | 50 % [30, 70] | 1.500 |\n| online | 100 % [80, 100] | 0.750 |" in readme.read_text()
    assert "(20 episodes, revision abc, 2026-11-30;" in readme.read_text()
    for name in ("success", "gap"):
        assert figure_digest(tmp_path / "docs" / "images" / f"demo_wall_{name}.png") == digest(kept)
