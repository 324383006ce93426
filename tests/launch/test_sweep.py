"""Sweeps of a small entry, as processes of their own: one member fails, one is killed, the others are kept."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from launch.grammar import is_sweep
from launch.record import FAILED, FINISHED, RunRecord, confirm, read_record
from launch.sweep import SWEEP, _asked_to_stop, summarize
from launch.sweep_results import read_runs
from tests.builders import REPOSITORY

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import hydra
from launch.resume import expand_resume
from launch.command_line import one_line_errors
from launch.entry import recorded, run_entry
from utils.interrupts import StopSignals
from launch.sweep_names import name_sweep

def wait(folder):
    with StopSignals() as stop:
        (folder / "waiting").touch()
        while stop.received is None:
            time.sleep(0.02)
        (folder / "state").write_text("saved")
        stop.raise_if_received()

@hydra.main(version_base="1.3", config_path="conf", config_name="toy")
@one_line_errors
@recorded(__file__, state="state")
def main(cfg):
    folder = Path(cfg.run_dir)
    with (folder / "begun").open("a") as file:
        file.write("x")
    if cfg.act == "refuse":
        raise ValueError("act=refuse is not allowed")
    if cfg.act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if cfg.act == "wait" and not (folder / "state").exists():
        wait(folder)
    return 0.5 + (cfg.seed - 3) ** 2

if __name__ == "__main__":
    sys.argv[1:] = name_sweep(expand_resume(sys.argv[1:], conf=Path("conf")), "sweeps")
    run_entry(main, sys.argv[1:])
"""
CONFIG = """
act: finish
seed: 0
run_dir: ${hydra:runtime.output_dir}
hydra:
  run: {dir: alone}
  sweep: {dir: sweeps/unnamed, subdir: "${member_name:${hydra.job.override_dirname}}"}
"""
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.fixture
def start(tmp_path, spawn):
    """Start the entry."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "toy.yaml").write_text(CONFIG)
    (tmp_path / "toy.py").write_text(SCRIPT)
    environment = os.environ | {
        "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}",
        "OMP_NUM_THREADS": "1",
    }
    return lambda *arguments: spawn(
        [sys.executable, "toy.py", *arguments], cwd=tmp_path, env=environment, start_new_session=True
    )


def end_of(process):
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def wait_for(process, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def members(tmp_path):
    (sweep,) = (tmp_path / "sweeps").iterdir()
    return {path.parent.name: path.parent for path in sweep.glob("*/run.json")}


@pytest.mark.slow
def test_a_member_that_dies_loses_no_other_and_only_the_failed_are_run_again(start, tmp_path):
    command = ("-m", "act=die,refuse,finish", "seed=1")
    code, said = end_of(start(*command, *JOBLIB))
    assert code == 1
    found = members(tmp_path)
    assert sorted(found) == ["act-die", "act-finish", "act-refuse"]
    assert "1 of 3 members finished" in said
    assert "failed act-die: killed by SIGKILL" in said
    assert "failed act-refuse: act=refuse is not allowed" in said
    assert "Traceback" not in said
    record = read_record(found["act-finish"])
    assert (found["act-finish"] / ".hydra" / "overrides.yaml").read_text().splitlines() == ["- act=finish", "- seed=1"]
    assert (record["status"], record["result"]) == ("finished", 4.5)
    code, said = end_of(start(*command))  # Hydra's own launcher: the same sweep
    assert code == 1
    assert "act-finish is finished: skipped" in said
    assert {name: len((folder / "begun").read_text()) for name, folder in found.items()} == {
        "act-die": 2, "act-finish": 1, "act-refuse": 2
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "seeds", "launcher"),
    [(signal.SIGTERM, "1", ()), (signal.SIGINT, "1,2", JOBLIB)],
    ids=["SIGTERM", "SIGINT-joblib"],
)
def test_a_stopped_sweep_saves_and_goes_on_by_its_folder(start, tmp_path, number, seeds, launcher):
    process = start("-m", "act=wait", f"seed={seeds}", *launcher)
    count = len(seeds.split(","))
    wait_for(process, lambda: len(list(tmp_path.glob("sweeps/*/*/waiting"))) == count)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)  # a terminal tells all
    code, said = end_of(process)
    assert code == 128 + number
    (sweep,) = (tmp_path / "sweeps").iterdir()
    assert f"resume=sweeps/{sweep.name}" in said
    for folder in members(tmp_path).values():
        assert read_record(folder)["status"] == "stopped"
        assert (folder / "state").read_text() == "saved"
    code, said = end_of(start(f"resume=sweeps/{sweep.name}"))
    assert code == 0, said
    assert f"{count} of {count} members finished" in said
    assert [read_record(folder)["status"] for folder in members(tmp_path).values()] == ["finished"] * count


def test_a_run_says_what_it_is(start, tmp_path):
    code, said = end_of(start("seed=7"))
    assert code == 0, said
    record = json.loads((tmp_path / "alone" / "run.json").read_text())
    assert (record["status"], record["result"], record["config"]["seed"]) == ("finished", 16.5, 7)
    assert record["command"] == "python toy.py seed=7"
    assert {"revision", "torch", "python", "cpu", "gpu", "platform"} <= record["environment"].keys()
    assert record["attempts"][0]["process"]["host"]
    assert record["seconds"] >= 0


def test_a_killed_sweep_takes_its_member_with_it(start, tmp_path):
    process = start("-m", "act=wait", "seed=1")
    wait_for(process, lambda: list(tmp_path.glob("sweeps/*/*/waiting")))
    process.kill()
    (folder,) = members(tmp_path).values()
    wait_for(None, lambda: read_record(folder)["status"] != "running")
    assert read_record(folder)["status"] == "stopped"
    assert (folder / "state").read_text() == "saved"


@pytest.mark.slow
def test_a_search_counts_what_is_finished_and_bears_a_failure(start, tmp_path):
    pytest.importorskip("optuna", reason="Optuna is not installed: uv pip install --group search")
    search = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1")
    search += ("hydra.sweeper.sampler.seed=1", "hydra.sweeper.max_failure_rate=1.0")
    command = (*search, "seed=range(0,5)", "act=choice(finish,refuse)")
    code, said = end_of(start(*command))
    records = {name: read_record(folder) for name, folder in members(tmp_path).items()}
    assert {record["status"] for record in records.values()} == {"finished", "failed"}, said
    assert code == 1
    best = min(record["result"] for record in records.values() if record["status"] == "finished")
    assert f"Best value: {best}" in said
    code, said = end_of(start(*command))
    assert f"Best value: {best}" in said
    assert len(members(tmp_path)) == len(records)
    finished = [name for name, record in records.items() if record["status"] == "finished"]
    assert all(f"{name} is finished: skipped" in said for name in finished)


def test_the_last_attempt_decides_and_numbers_keep_their_settings(tmp_path, caplog):
    """A finished member, then an attempt with other settings that failed: exit status and names say so."""
    RunRecord(tmp_path / "a", {"rate": 1}, ["rate=1"]).end(FINISHED, result=0.5)
    assert summarize(tmp_path, 1)
    RunRecord(tmp_path / "a", {"rate": -1}, ["rate=-1"]).end(FAILED, "rate must be positive")
    assert not summarize(tmp_path, 1)
    assert "failed a: rate must be positive" in caplog.text
    (run,) = read_runs(tmp_path)
    assert (run.settings, run.is_finished) == ({"rate": "1"}, True)
    confirm(tmp_path / "a", read_record(tmp_path / "a"))  # the first command, given again
    assert summarize(tmp_path, 1)


@pytest.mark.parametrize("argument", ["-m", "--multirun", "--multi", "--mul"])
def test_whatever_hydra_takes_for_a_sweep_is_one(argument):
    assert is_sweep([argument, "seed=1,2"])
    assert not is_sweep(["--info", "seed=1"])


def test_a_worker_stops_when_the_sweep_is_gone(monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setenv(SWEEP, str(ended.pid))
    assert _asked_to_stop() == signal.SIGTERM
    monkeypatch.setenv(SWEEP, str(os.getppid()))
    assert _asked_to_stop() is None
