"""Runs that revision 77772fb wrote (November 2026) still load, go on where they were stopped, and end alike.

``tests/golden/saved_runs.tar.xz`` holds their folders, the data that they were trained on, and ``expected/``: weights
and results of the same runs when that revision itself had continued them.
"""

import json
import os
import sys
import tarfile

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file

import plan
import train
from launch import sweep, sweep_table
from launch.resume import expand_resume
from launch.sweep_names import name_sweep
from planning.episode_record import EpisodeRecord
from utils.moved_settings import current_tensor

TRAININGS = ("offline", "online", "adversarial", "online_adversarial", "initnet", "vit", "small", "resnet")


@pytest.fixture
def runs(golden, tmp_path, monkeypatch):
    """The folder of the runs, as the current directory."""
    with tarfile.open(golden("saved_runs.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATASET_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HYDRA_MAIN_MODULE", "__main__")
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def resume(entry, folder, monkeypatch, *more):
    GlobalHydra.instance().clear()
    quiet = ("hydra/job_logging=none", "hydra/hydra_logging=none")
    command = name_sweep([*expand_resume([f"resume={folder}", *more]), *quiet], "sweeps")
    monkeypatch.setattr(sys, "argv", [f"{entry.__name__}.py", *command])
    entry.main()


@pytest.mark.parametrize("name", TRAININGS)
def test_training_goes_on(runs, name, monkeypatch):
    before = (runs / name / "logs.json").read_text().splitlines()
    resume(train, name, monkeypatch)
    found, expected = (
        load_file(path)
        for path in (
            runs / name / "checkpoints" / "model_latest.safetensors",
            runs / "expected" / f"{name}.safetensors",
        )
    )
    expected = {current_tensor(key): tensor for key, tensor in expected.items()}
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-4)  # another machine rounds otherwise
    assert len((runs / name / "logs.json").read_text().splitlines()) >= len(before)


@pytest.mark.parametrize("name", ["plan_finished", "plan_mpc_gd", "plan_mpc_cem"])
def test_planning_goes_on(runs, name, monkeypatch):
    resume(plan, name, monkeypatch)
    found, expected = (
        json.loads(path.read_text()) for path in (runs / name / "results.json", runs / "expected" / f"{name}.json")
    )
    for key, value in expected.items():
        if "seconds" not in key:
            assert found[key] == pytest.approx(value, rel=1e-3), key
    if name != "plan_finished":
        assert (EpisodeRecord.read(runs / name / "episodes.npz").states[:, 0] != 0).any()


def test_finished_members_of_a_sweep_are_not_run_again(runs, monkeypatch):
    monkeypatch.setattr(sweep, "_run", lambda *_: pytest.fail("a member was run again"))
    before = {path: path.read_bytes() for path in runs.glob("sweep/*/*.json")}
    resume(plan, "sweep", monkeypatch, "objective=last")  # the default of then
    assert {path: path.read_bytes() for path in runs.glob("sweep/*/*.json")} == before
    assert len(before) == 8


def test_a_sweep_is_collected(runs, capsys):
    sweep_table.main([os.fspath(runs / "sweep")])
    said = capsys.readouterr().out
    assert "planner.opt_steps" in said
    assert "Not in these numbers" not in said
