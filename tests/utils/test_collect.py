import csv
import json

import numpy as np
import pytest

from utils.collect import main
from utils.record import FAILED, FINISHED, RunRecord
from utils.statistics import crossed_interval, mean_interval, wilson_interval


def make_run(folder, overrides, results=None, log=None, error=None):
    folder.mkdir(parents=True)
    record = RunRecord(folder, dict(text.split("=") for text in overrides), overrides)
    record.end(FAILED if error else FINISHED, error)
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))
    if log is not None:
        (folder / "logs.json").write_text("".join(f"{json.dumps(line)}\n" for line in log))


def evaluation(*solved_at):
    return {"success_rate": sum(n > 0 for n in solved_at) / len(solved_at), "solved_at": list(solved_at)}


def collected(folder, *options):
    main([str(folder), *options])
    assert (folder / "collected.png").stat().st_size > 1000
    with (folder / "collected.csv").open() as file:
        return list(csv.DictReader(file))


def numbers(row, name):
    return tuple(float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))


def test_seeds_of_one_model_are_more_episodes(tmp_path, capsys):
    make_run(tmp_path / "a1", ["ckpt_path=m", "planner=gd", "seed=1"], evaluation(1, 0, 2, 1))
    make_run(tmp_path / "a2", ["ckpt_path=m", "planner=gd", "seed=2"], evaluation(1, 1, 0, 0))
    make_run(tmp_path / "b1", ["ckpt_path=m", "planner=cem", "seed=1"], error="out of | memory")
    first, second = collected(tmp_path)
    assert (first["planner"], first["runs"], first["finished"]) == ("gd", "2", "2")
    assert numbers(first, "success_rate") == pytest.approx((5 / 8, *wilson_interval(5, 8)), abs=1e-4)
    assert (second["planner"], second["finished"], second["success_rate"]) == ("cem", "0", "")
    said = capsys.readouterr().out
    assert said == (tmp_path / "collected.md").read_text()
    assert "- b1: failed: out of | memory" in said
    assert "| cem | 0 of 1 |  |" in said


def test_models_that_met_the_same_episodes_are_no_more_episodes(tmp_path):
    make_run(tmp_path / "a1", ["ckpt_path=m1", "seed=1"], evaluation(1, 0, 2, 1))
    make_run(tmp_path / "a2", ["ckpt_path=m2", "seed=1"], evaluation(1, 1, 0, 1))
    (row,) = collected(tmp_path, "--over", "ckpt_path")
    expected = crossed_interval(np.array([[1.0, 0, 1, 1], [1, 1, 0, 1]]))
    assert numbers(row, "success_rate") == pytest.approx(expected, abs=1e-4)


def test_a_training_is_its_last_numbers(tmp_path):
    for seed, loss in ((1, 0.5), (2, 0.7), (3, 0.6)):
        log = [{"step": 1, "val_loss": 9.0}, {"step": 2, "val_loss": loss}, {"step": 3, "val_loss": None}]
        make_run(tmp_path / f"s{seed}", [f"training.seed={seed}", "method=online"], log=log)
    (row,) = collected(tmp_path, "--metric", "val_loss")
    assert numbers(row, "val_loss") == pytest.approx(mean_interval([0.5, 0.7, 0.6]), abs=1e-4)
    each = collected(tmp_path, "--over", "--metric", "val_loss")
    assert [(row["training.seed"], row["val_loss"], row["val_loss_low"]) for row in each] == [
        ("1", "0.5", ""), ("2", "0.7", ""), ("3", "0.6", "")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--over", "lr"], "--over lr: the runs differ in seed"),
        (["--metric", "speed"], "--metric speed: the runs"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, options, expected):
    make_run(tmp_path / "a", ["seed=1"], evaluation(1))
    make_run(tmp_path / "b", ["seed=2"], evaluation(0))
    with pytest.raises(SystemExit, match=expected):
        main([str(tmp_path), *options])


def test_a_folder_without_runs_is_said(tmp_path):
    with pytest.raises(SystemExit, match="there is no run"):
        main([str(tmp_path)])
