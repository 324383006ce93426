"""The folder of a run belongs to one process, and nothing is written through links in it: as users meet that."""

import importlib
import json
import os
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

import plan
import train
from launch.record import RunRecord, read_record
from launch.run_folder import run_folder, take_run_folder
from launch.sweep import run_member
from tests.builders import REPOSITORY
from utils.folder_lock import LOCK, FolderInUseError, release
from utils.process_identity import birth

QUIET = ("hydra/hydra_logging=none",)
HOLDER = "import sys, time; from pathlib import Path; from utils.folder_lock import hold; hold(Path(sys.argv[1])); "
HOLDER += "print('holds it', flush=True); time.sleep(60)"
IN_A_TRAINING = ("logs.json", "train.log", "run.json", ".hydra", "checkpoints", "open_loop", "replay", "wandb")
IN_AN_EVALUATION = ("plan.log", "results.json", "plan_targets.npz", "iteration_1.png", "planning_state.pt")
LINKS = [*((train, name) for name in IN_A_TRAINING), *((plan, name) for name in IN_AN_EVALUATION)]


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Run an entry in this process; returns (exit code, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_MAIN_MODULE", "__main__")  # so that it looks for conf/ beside the file, as in a script

    def run(entry, *arguments):
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [f"{entry.__name__}.py", *arguments, *QUIET])
        with pytest.raises(SystemExit) as stopped:
            entry.main()
        if isinstance(stopped.value.code, str):  # as the interpreter would
            return 1, stopped.value.code
        return stopped.value.code, capfd.readouterr().err

    return run


def contents(folder):
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else None) for path in folder.rglob("*")
    }


@pytest.mark.parametrize(("entry", "name"), LINKS, ids=[f"{entry.__name__}-{name}" for entry, name in LINKS])
def test_a_prepared_link_is_refused_before_anything_is_written(call, tmp_path, entry, name):
    outside, folder = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    folder.mkdir()
    for each in ("precious", ".notes.tmp"):
        (outside / each).write_text("somebody's")
    (folder / name).symlink_to(outside / "precious" if "." in name[1:] else outside)
    before = contents(tmp_path)
    code, said = call(entry, f"hydra.run.dir={folder}", "ckpt_path=nowhere")
    assert code == 1
    assert said.startswith(f"error: {folder / name} is a link to ") and said.strip().count("\n") == 0
    assert contents(tmp_path) == before


def test_a_second_run_ends_at_once_and_changes_nothing(call, tmp_path, spawn):
    folder = tmp_path / "run"
    RunRecord(folder, {"training": {"seed": 1}})
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    holder = spawn([sys.executable, "-c", HOLDER, str(folder)], env=environment)
    assert holder.stdout.readline() == "holds it\n"
    before = contents(tmp_path)
    for entry, more in ((train, "training.seed=2"), (plan, "seed=3")):
        code, said = call(entry, f"hydra.run.dir={folder}", "ckpt_path=nowhere", more)
        assert code == 1
        assert said.startswith(f"error: run folder {folder} is in use by process {holder.pid} on ")
        assert said.strip().count("\n") == 0
        assert contents(tmp_path) == before
    code, said = call(
        importlib.import_module("experiments.__main__"), "--config-name", "demo_quick_wall", f"folder={folder}"
    )
    assert code == 1 and f"in use by process {holder.pid} on " in said
    assert contents(tmp_path) == before


def test_a_record_of_a_process_that_runs_counts_like_a_lock(tmp_path):
    RunRecord(tmp_path, {})
    record = json.loads((tmp_path / "run.json").read_text())
    parent = os.getppid()
    record["attempts"][-1]["process"] |= {"pid": parent, "birth": birth(parent)}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(FolderInUseError, match=f"in use by process {parent} since "):
        take_run_folder(tmp_path)
    record["attempts"][-1]["process"]["host"] = "elsewhere"  # which would see our lock, as we see its
    (tmp_path / "run.json").write_text(json.dumps(record))
    with run_folder(tmp_path):
        assert (tmp_path / LOCK).exists()
    (tmp_path / "run.json").write_text('{"status": "running", "config": {}, "attempts": [{}]}')
    with run_folder(tmp_path):
        pass


def test_files_that_are_continued_have_no_other_name_afterwards(tmp_path):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    for name in ("train.log", "logs.json", ".hydra/config.yaml"):
        (tmp_path / "run" / name).write_text("kept")
        (tmp_path / name.replace("/", "_")).hardlink_to(tmp_path / "run" / name)
    take_run_folder(tmp_path / "run")
    for name in ("train.log", "logs.json", ".hydra/config.yaml"):
        with (tmp_path / "run" / name).open("a") as file:
            file.write(", more")
        assert (tmp_path / name.replace("/", "_")).read_text() == "kept"
        assert (tmp_path / "run" / name).read_text() == "kept, more"
    release(tmp_path / "run")


def test_a_member_of_a_sweep_that_is_a_link_is_left_alone(tmp_path, monkeypatch, caplog):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "sweep").mkdir()
    member = tmp_path / "sweep" / "seed-1"
    member.symlink_to(outside)
    hydra = {"sweep": {"dir": str(tmp_path / "sweep")}, "runtime": {"output_dir": str(member)}}
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": hydra}))
    assert run_member("train.py", {}) is None
    assert f"{member} is a link to" in caplog.text
    assert list(outside.iterdir()) == [] and read_record(member) is None
