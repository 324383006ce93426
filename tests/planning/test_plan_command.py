"""``python plan.py ...`` as users type it."""

import json
import logging
import os
import re
import runpy
import signal
import sys
import time
from pathlib import Path

import pytest

from planning.mpc import MPCController
from planning.saved_evaluation import STATE
from tests.builders import REPOSITORY, wall_model_directory
from utils.loggers import read_json_lines

SCRIPT = REPOSITORY / "plan.py"
QUICK = ["n_evals=2", "n_plot_samples=0", "device=cpu", "num_threads=1", "planner.max_iter=2"]
QUICK += ["planner.sub_planner.horizon=2", "planner.sub_planner.opt_steps=2"]
TIMING = ("seconds", "memory")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return wall_model_directory(tmp_path_factory.mktemp("model"))


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run the script in this process, in an empty folder; importing torch once is enough for all of these tests."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    yield run
    root.handlers[:], root.level = before  # Hydra put its own in their place


def run_folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "plan_outputs" / "wall").iterdir()
    return folder


def untimed(folder: Path) -> list[dict]:
    return [
        {k: v for k, v in line.items() if not any(word in k for word in TIMING)}
        for line in read_json_lines(folder / "logs.json")
    ]


def test_results_go_to_a_folder_of_the_environment_and_the_time(command, model, tmp_path):
    command("--config-name", "plan_wall.yaml", f"ckpt_path={model}", *QUICK)
    folder = run_folder(tmp_path)
    assert {"logs.json", "results.json", "plan_targets.npz", ".hydra"} <= {path.name for path in folder.iterdir()}
    assert "final_eval/success_rate" in read_json_lines(folder / "logs.json")[-1]


@pytest.mark.parametrize("planner", ["gd", "cem"])
def test_options_directly_under_planner_when_it_plans_open_loop(command, model, planner):
    few = ["planner.opt_steps=2"] + (["planner.num_samples=4", "planner.topk=2"] if planner == "cem" else [])
    wanted = [argument for argument in QUICK if not argument.startswith("planner.")]
    command(f"ckpt_path={model}", *wanted, f"planner={planner}", *few)


def test_closed_loops_of_the_cross_entropy_method(command, model, tmp_path):
    few = ["planner.sub_planner.num_samples=4", "planner.sub_planner.topk=2", "planner.n_taken_actions=2"]
    command(f"ckpt_path={model}", "planner=mpc_cem", *QUICK, *few)
    assert read_json_lines(run_folder(tmp_path) / "logs.json")[0]["model_evaluations"] == 2 * 4 + 1


def test_an_evaluation_with_variation_says_so_and_is_not_taken_for_one_without(command, model, tmp_path):
    quick = [f"ckpt_path={model}", *QUICK, "planner.max_iter=1", "hydra.run.dir=varied"]
    command(*quick, "vary=[colour.agent,start]")
    episodes = json.loads((tmp_path / "varied" / "episodes.json").read_text())
    assert episodes["vary"] == ["colour.agent", "start"]
    assert [*episodes["episodes"][0]["layout"]] == ["fix_door_location", "fix_wall_location", "dot_colour"]
    with pytest.raises(SystemExit, match="holds a finished evaluation with other settings"):
        command(*quick)


ERRORS = {
    "no model there": (["ckpt_path=nowhere"], "ckpt_path=nowhere: there is no checkpoints/model_latest"),
    "no model said": (["ckpt_path=???"], "the configuration is not complete: Missing mandatory value: ckpt_path"),
    "a text for a number": (["planner.sub_planner.lr=fast"], "planner.sub_planner.lr=fast must be a number"),
    "a fraction": (["n_evals=2.5"], "n_evals=2.5 must be a whole number"),
    "a value out of range": (["planner.sub_planner.lr=-1"], "planner.sub_planner.lr=-1 must be a number, above 0"),
    "no such choice": (["planner.sub_planner.optimizer_type=lion"], "planner.optimizer_type must be one of sgd"),
    "elites": (["planner=mpc_cem", "planner.sub_planner.topk=300"], "planner.topk must be at least 2 and below"),
    "no end": (["planner.max_iter=null"], "planner.max_iter=null would never end"),
    "no such goals": (["goal_source=somewhere"], "goal_source must be one of dset, random_state"),
    "no goal file": (["goal_source=file", "goal_file_path=x.npz"], "goal_file_path: there is no file x.npz"),
    "no such factor": (["vary=[size,colours]"], "vary=colours: env=wall has no such factor; did you mean colour"),
    "no data": (["goal_source=dset", "env.dataset.data_path=nodata"], "nodata"),
    "an option without effect": (
        ["objective.base=2"],
        "objective.base=2 has no effect with objective.mode=auto; use objective=all",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_mistakes_of_users_become_one_line(command, model, arguments, message):
    quick = QUICK if "planner=mpc_cem" not in arguments else QUICK[:-1]
    with pytest.raises(SystemExit) as stopped:
        command(f"ckpt_path={model}", *quick, *arguments)
    text = stopped.value.code  # a text as exit code is printed, and the real code is 1
    assert isinstance(text, str) and text.startswith("error: ")
    assert message in text
    assert "\n" not in text
    assert "Traceback" not in text


def test_a_model_of_another_environment(command, tmp_path):
    model = wall_model_directory(tmp_path / "model")
    (model / "hydra.yaml").write_text((model / "hydra.yaml").read_text().replace("name: wall", "name: pusht"))
    with pytest.raises(SystemExit, match=r"error: env=wall was asked for, but .* was trained on env=pusht"):
        command("env=wall", f"ckpt_path={model}", *QUICK)


def test_an_epoch_is_chosen_by_its_number(command, model):
    with pytest.raises(SystemExit, match=r"there is no checkpoints/model_12\.safetensors"):
        command(f"ckpt_path={model}", *QUICK, "model_epoch=12")


MISSPELT = {
    "key": ("planer.max_iter=3", "there is no such setting; did you mean planner.max_iter"),
    "nested key": ("planner.sub_planner.optsteps=3", "did you mean planner.sub_planner.opt_steps"),
    "option": ("planner=mpc_gdd", "planner has no option mpc_gdd; did you mean mpc_gd"),
    "grammar": ("seed=[1", "seed=[1 cannot be read"),
}


@pytest.mark.parametrize(("argument", "message"), MISSPELT.values(), ids=MISSPELT)
def test_what_is_said_of_misspelt_keys_and_options(command, model, argument, message):
    with pytest.raises(SystemExit, match=re.escape(message)):
        command(f"ckpt_path={model}", *QUICK, argument)


def test_added_arguments_that_a_class_does_not_know_are_named(command, model):
    with pytest.raises(SystemExit) as stopped:
        command(f"ckpt_path={model}", *QUICK, "+planner.sub_planner.momentum=0.9")
    assert "momentum" in str(stopped.value.code)


def test_a_stopped_run_is_resumed_by_its_folder(command, model, tmp_path, monkeypatch):
    iterate = MPCController.iterate

    def stopped_in_the_first(self, task, episodes, progress):
        iterate(self, task, episodes, progress)
        if episodes.iteration == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    arguments = (f"ckpt_path={model}", *QUICK, "n_plot_samples=1", "seed=3")
    with monkeypatch.context() as patch:
        patch.setattr(MPCController, "iterate", stopped_in_the_first)
        with pytest.raises(SystemExit) as stopped:
            command(*arguments)
    assert stopped.value.code == 128 + signal.SIGTERM
    folder = run_folder(tmp_path)
    assert (folder / STATE).exists()
    command(f"resume={folder}")
    assert run_folder(tmp_path) == folder  # no second one
    assert not (folder / STATE).exists()

    command(*arguments, f"hydra.run.dir={tmp_path / 'whole'}")
    assert untimed(folder) == untimed(tmp_path / "whole")


def test_a_folder_that_is_no_run_cannot_be_resumed(command, tmp_path):
    with pytest.raises(SystemExit, match=r"error: resume=.*: there is no run to resume"):
        command(f"resume={tmp_path}")


@pytest.mark.slow
def test_a_sweep_runs_every_member_in_a_folder_of_its_own(command, model, tmp_path):
    command("-m", f"ckpt_path={model}", *QUICK, "seed=1,2")
    made = (tmp_path / "plan_outputs" / "sweeps").glob("seed-*/*/results.json")
    assert sorted(path.parent.name for path in made) == ["seed-1", "seed-2"]


@pytest.mark.slow
def test_the_exit_code_of_a_mistake_is_one(forked, tmp_path):
    process = forked(SCRIPT, "ckpt_path=nowhere", cwd=tmp_path)
    shown = "".join(process.communicate(timeout=120))
    assert process.returncode == 1
    assert "error: ckpt_path=nowhere" in shown
    assert "Traceback" not in shown


@pytest.mark.slow
def test_a_killed_run_is_resumed_without_a_trace(command, forked, model, tmp_path):
    """SIGKILL at whatever point it happens to be, some iterations in."""
    settings = [f"ckpt_path={model}", *QUICK, "planner.max_iter=30", "n_plot_samples=1"]
    folder = tmp_path / "killed"
    process = forked(SCRIPT, *settings, f"hydra.run.dir={folder}", cwd=tmp_path)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (folder / STATE).exists() and len(read_json_lines(folder / "logs.json")) >= 2:
            process.kill()
            break
        time.sleep(0.005)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "results.json").exists()
    command(f"resume={folder}")
    command(*settings, f"hydra.run.dir={tmp_path / 'whole'}")
    assert untimed(folder) == untimed(tmp_path / "whole")
