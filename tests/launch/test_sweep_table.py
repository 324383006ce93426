import csv
import json

import numpy as np
import pytest

from launch.record import FAILED, FINISHED, RunRecord
from launch.sweep_table import main
from utils.statistics import crossed_interval, mean_interval, wilson_interval


def make_run(folder, overrides, results=None, log=None, error=None):
    folder.mkdir(parents=True)
    record = RunRecord(folder, dict(text.split("=") for text in overrides), overrides)
    record.end(FAILED if error else FINISHED, error)
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))
    if log is not None:
        (folder / "logs.json").write_text("".join(f"{json.dumps(line)}\n" for line in log))


def evaluation(*solved_at, names=None):
    results = {"success_rate": sum(n > 0 for n in solved_at) / len(solved_at), "solved_at": list(solved_at)}
    return results | ({"episode_hash": list(names)} if names else {})


def collected(folder, *options):
    main([str(folder), *options])
    assert (folder / "collected.png").stat().st_size > 1000
    with (folder / "collected.csv").open() as file:
        return list(csv.DictReader(file))


def numbers(row, name):
    return tuple(float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))


def test_seeds_of_one_model_are_more_episodes(tmp_path, capsys):
    make_run(tmp_path / "a1", ["ckpt_path=m", "planner=gd", "seed=1"], evaluation(1, 0, 2, 1, names="abcd"))
    make_run(tmp_path / "a2", ["ckpt_path=m", "planner=gd", "seed=2"], evaluation(1, 1, 0, 0, names="efgh"))
    make_run(tmp_path / "b1", ["ckpt_path=m", "planner=cem", "seed=1"], error="out of | memory")
    first, second = collected(tmp_path)
    assert (first["planner"], first["runs"], first["finished"]) == ("gd", "2", "2")
    assert numbers(first, "success_rate") == pytest.approx((5 / 8, *wilson_interval(5, 8)), abs=1e-4)
    assert (second["planner"], second["finished"], second["success_rate"]) == ("cem", "0", "")
    said = capsys.readouterr().out
    assert said == (tmp_path / "collected.md").read_text()
    assert "- b1: failed: out of | memory" in said
    assert "| cem | 0 of 1 | 0 |  |" in said
    assert "| gd | 2 | 8 |" in said and "more than once" not in said


def test_models_that_met_the_same_episodes_are_no_more_episodes(tmp_path):
    make_run(tmp_path / "a1", ["ckpt_path=m1", "seed=1"], evaluation(1, 0, 2, 1))
    make_run(tmp_path / "a2", ["ckpt_path=m2", "seed=1"], evaluation(1, 1, 0, 1))
    (row,) = collected(tmp_path, "--over", "ckpt_path")
    expected = crossed_interval(np.array([[1.0, 0, 1, 1], [1, 1, 0, 1]]))
    assert numbers(row, "success_rate") == pytest.approx(expected, abs=1e-4)


def test_an_episode_that_a_model_met_twice_counts_once(tmp_path, capsys):
    make_run(tmp_path / "a1", ["seed=1"], evaluation(1, 0, 2, 1, names="abcd"))
    make_run(tmp_path / "a2", ["seed=2"], evaluation(1, 0, 0, 0, names="abce"))
    (row,) = collected(tmp_path)
    # a 1, b 0, c a half, d 1, e 0
    assert numbers(row, "success_rate") == pytest.approx((2.5 / 5, *wilson_interval(2.5, 5)), abs=1e-4)
    assert (row["distinct_episodes"], row["episodes"]) == ("5", "8")
    said = capsys.readouterr().out
    assert "| 2 | 5 distinct of 8 |" in said and "more than once by the same model: each counts once" in said


def test_folders_of_before_are_counted_by_their_goals_or_else_by_the_seeds_of_then(tmp_path):
    """Of 3 x 4 episodes 7 are distinct: seed s gave episode n the environment seed s n + 1."""
    for seed in (1, 2, 3):
        make_run(tmp_path / f"by_seed/s{seed}", [f"seed={seed}"], evaluation(1, 0, 0, 0))
        make_run(tmp_path / f"by_goals/s{seed}", [f"seed={seed}"], evaluation(1, 0, 0, 0))
        drawn = np.array([[float(seed * n + 1), 0.0] for n in range(4)])
        door = np.full((4, 1), 30)
        np.savez(
            tmp_path / f"by_goals/s{seed}/plan_targets.npz",
            **{"seeds": np.arange(4) + 9 * seed, "states": drawn, "goal_states": drawn + 1, "layout/door": door},
        )
    for kind in ("by_seed", "by_goals"):
        (row,) = collected(tmp_path / kind)
        # the first is one episode, which all solved
        assert (row["distinct_episodes"], row["episodes"]) == ("7", "12")
        assert numbers(row, "success_rate") == pytest.approx((1 / 7, *wilson_interval(1, 7)), abs=1e-4)


def test_rates_of_doing_nothing_stand_beside_success(tmp_path):
    more = {"do_nothing_rate": 0.5, "solved_by_doing_nothing": [True, False], "unsolved_starts_only": True}
    make_run(tmp_path / "a", ["seed=1"], evaluation(1, 1, names="ab") | more)
    make_run(
        tmp_path / "b", ["seed=2"], evaluation(1, 1, names="bc") | more | {"solved_by_doing_nothing": [False, True]}
    )
    (row,) = collected(tmp_path)
    assert numbers(row, "do_nothing_rate") == pytest.approx((2 / 3, *wilson_interval(2, 3)), abs=1e-4)


def test_runs_of_both_protocols_share_no_row(tmp_path):
    """What was run before the setting came drew its episodes as it does with false."""
    make_run(tmp_path / "a", ["seed=1"], evaluation(1, names="a") | {"unsolved_starts_only": True})
    make_run(tmp_path / "b", ["seed=2"], evaluation(0, names="b"))
    rows = collected(tmp_path)
    assert [(row["unsolved_starts_only"], row["success_rate"]) for row in rows] == [("true", "1"), ("false", "0")]


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
