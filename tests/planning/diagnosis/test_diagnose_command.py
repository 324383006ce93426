"""``python -m planning.diagnose`` on folders that ``plan.py`` has left behind."""

import json
import re
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from launch.command_line import parse
from plan import plan
from planning.config import PlanConfig
from planning.diagnose import DIAGNOSIS, diagnose, main
from tests.builders import REPOSITORY, wall_data, wall_model_directory

QUICK = ["n_evals=4", "n_plot_samples=0", "planner.max_iter=2", "device=cpu", "num_threads=1"]
QUICK += ["planner.sub_planner.horizon=2", "planner.sub_planner.opt_steps=3"]


def run(folder: Path, model: Path, *overrides: str) -> Path:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        given = [*QUICK, f"ckpt_path={model}", f"run_dir={folder}", *overrides]
        plan(parse(compose("plan_wall", overrides=given), PlanConfig))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return wall_model_directory(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def evaluated(model, tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("evaluated"), model)


@pytest.fixture(scope="module")
def found(evaluated, model, tmp_path_factory) -> dict:
    other = run(tmp_path_factory.mktemp("other"), model, "planner.sub_planner.lr=0.5")
    data = wall_data(tmp_path_factory.mktemp("data"))
    return diagnose(evaluated, [other], planes=1, settings=[f"env.dataset.data_path={data}"])


def test_a_diagnosis_is_returned_and_written(found, evaluated):
    assert json.loads((evaluated / DIAGNOSIS).read_text()) == found
    assert found["schema"] == 1 and found["goals"] == "random_state" and found["seed"] == 99
    assert found["episodes"] == [0, 1, 2, 3]
    assert sum(found["failures"].values()) == len(found["sorted"]) > 0
    steps = found["error_by_step"]
    assert [len(steps[kind]) for kind in ("dataset", "planned", "random")] == [2, 2, 2]
    assert len(found["exploitation"]["imagined"]) == len(found["exploitation"]["true"]) == 4
    assert len(found["gradient_norm"]) == 2 and len(found["plane"]) == 1


def test_the_command_says_what_was_found_and_does_without_data(found, evaluated, capsys, monkeypatch):
    monkeypatch.delenv("DATASET_DIR", raising=False)
    main([str(evaluated), "--episodes", "3", "--planes", "0"])
    said = capsys.readouterr().out
    assert said.startswith("3 episodes looked at") and "no data set is here" in said
    assert json.loads((evaluated / DIAGNOSIS).read_text())["error_by_step"]["dataset"] is None


def test_the_page_names_every_entry(found):
    page = (REPOSITORY / "docs" / "why.md").read_text(encoding="utf-8")
    nested = {**found["exploitation"], **found["plane"][0], **found["thresholds"], **found["sorted"][0]}
    for name in {**found, **nested, **found["plane"][0]["points"][0], **found["error_by_step"]}:
        assert re.search(rf"`(\w+\.)*{name}`", page), name


def emptied(folder: Path, tmp_path: Path, *removed: str) -> Path:
    copied = shutil.copytree(folder, tmp_path / "copied")
    for name in removed:
        (copied / name).unlink()
    return copied


def test_folders_and_settings_that_do_not_fit_are_refused_in_one_line(evaluated, model, tmp_path):
    refusals = {
        "holds no finished evaluation": lambda: diagnose(tmp_path),
        "has no episodes.npz": lambda: diagnose(emptied(evaluated, tmp_path, "episodes.npz")),
        "takes what was evaluated as it was": lambda: diagnose(evaluated, settings=["planner.lr=1"]),
        "there is no such setting": lambda: diagnose(evaluated, settings=["devise=cpu"]),
        "looks at 3 or more episodes": lambda: diagnose(evaluated, episodes=1),
    }
    for message, call in refusals.items():
        with pytest.raises(ValueError, match=message) as refused:
            call()
        assert "\n" not in str(refused.value)
    with pytest.raises(SystemExit, match=r"^error: .* holds no finished evaluation"):
        main([str(tmp_path)])


def test_a_model_that_was_trained_on_is_refused(evaluated, tmp_path):
    folder = emptied(evaluated, tmp_path)
    finished = json.loads((folder / "finished.json").read_text())
    finished["identity"]["model"][2] += 1
    (folder / "finished.json").write_text(json.dumps(finished))
    with pytest.raises(ValueError, match="has been trained on since"):
        diagnose(folder)


def test_evaluations_in_the_simulator_have_no_model_to_diagnose(evaluated, tmp_path):
    folder = emptied(evaluated, tmp_path)
    finished = json.loads((folder / "finished.json").read_text())
    finished["identity"]["dynamics"] = "simulator"
    (folder / "finished.json").write_text(json.dumps(finished))
    with pytest.raises(ValueError, match="no model took part"):
        diagnose(folder)


def test_evaluations_of_other_episodes_are_of_no_help(evaluated, model, tmp_path):
    with pytest.raises(ValueError, match="none of the episodes"):
        diagnose(evaluated, [run(tmp_path, model, "seed=5", "planner.max_iter=1")])
