"""Sweeps, several tasks, preemption and requeueing in a real SLURM on this machine: ``make test-cluster``."""

import subprocess
import sys
import time

import pytest

from launch.record import read_record
from tests.builders import REPOSITORY, wall_model_directory
from tests.cluster.local_slurm import LocalSlurm, why_not
from tests.test_train_cli import assert_same_results
from tests.training.tiny import SMALL, STATE, make_wall, without_times

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PLAN = (
    "n_evals=2",
    "n_plot_samples=0",
    "device=cpu",
    "num_threads=1",
    "goal_source=random_state",
    "planner.max_iter=2",
)
PLAN += ("planner.sub_planner.horizon=2", "planner.sub_planner.opt_steps=2")
ON_SLURM = (
    "cluster=slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=null",
    "hydra.launcher.timeout_min=5",
)
TRAIN = (*SMALL, "training.epochs=8", "training.max_batches=15", "training.save_every_x_batch=100000")
"""120 steps, enough to be stopped twice; nothing is saved within an epoch but on a signal."""


@pytest.fixture(scope="module")
def slurm():
    if reason := why_not():
        pytest.skip(reason)
    with LocalSlurm() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def environment(slurm, tmp_path_factory):
    """Of commands that use the cluster and the small data set."""
    data = make_wall(tmp_path_factory.mktemp("data"))
    return slurm.environment | {"DATASET_DIR": str(data), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def submit(slurm, environment, tmp_path):
    """Queue a line of shell as a job; returns its number."""

    def send(line, *options):
        command = ["sbatch", "--parsable", "--requeue", f"--output={tmp_path}/job.txt", "--open-mode=append", *options]
        return subprocess.run(
            [*command, f"--wrap={line}"], cwd=REPOSITORY, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    return send


@pytest.fixture
def reach(slurm, tmp_path):
    """Wait for something of a job, with what it said in the message if it does not come."""

    def wait(number, condition, seconds=90):
        end = time.monotonic() + seconds
        while not condition():
            job = slurm.job(number)
            said = (tmp_path / "job.txt").read_text() if (tmp_path / "job.txt").exists() else ""
            assert time.monotonic() < end and job["JobState"] != "FAILED", f"{job}\n{said}\n{slurm.logs()}"
            time.sleep(0.1)

    return wait


def script(name, *arguments):
    return " ".join([sys.executable, name, *arguments])


def test_a_sweep_of_four_jobs_keeps_what_succeeds_and_runs_the_rest_again(environment, tmp_path):
    model, sweep = wall_model_directory(tmp_path / "model"), tmp_path / "sweep"
    command = [
        sys.executable,
        "plan.py",
        "-m",
        f"ckpt_path={model}",
        *PLAN,
        "seed=1,2",
        "planner.sub_planner.lr=0.1,-1",
    ]
    command += [*ON_SLURM, f"hydra.sweep.dir={sweep}"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 of 4 members finished" in done.stdout
    assert "failed planner.sub_planner.lr--1+seed-1: planner.lr must be > 0" in done.stdout
    records = {path.parent.name: read_record(path.parent) for path in sweep.glob("*/run.json")}
    assert sorted(record["status"] for record in records.values()) == ["failed", "failed", "finished", "finished"]
    assert all(record["attempts"][0]["process"]["slurm_job"] for record in records.values())
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stdout + done.stderr
    attempts = {path.parent.name: len(read_record(path.parent)["attempts"]) for path in sweep.glob("*/run.json")}
    assert {name: 1 if "-0.1+" in name else 2 for name in records} == attempts


def test_stopped_by_a_signal_then_preempted_it_ends_as_if_undisturbed(slurm, environment, submit, reach, tmp_path):
    alone, folder = tmp_path / "alone", tmp_path / "run"
    arguments = (*TRAIN, f"ckpt_path={tmp_path}/none")
    undisturbed = [sys.executable, "train.py", *arguments, f"hydra.run.dir={alone}"]
    subprocess.run(undisturbed, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    job = submit(f"srun {script('train.py', *arguments, f'hydra.run.dir={folder}')}")

    def lines():
        return len((folder / "logs.json").read_text().splitlines()) if (folder / "logs.json").exists() else 0

    def attempts():
        return (read_record(folder) or {"attempts": []})["attempts"]

    reach(job, lambda: lines() >= 10)
    slurm.run("scancel", "--signal=USR1", job)
    reach(job, lambda: len(attempts()) == 2 and slurm.job(job)["JobState"] == "RUNNING")
    before = lines()
    reach(job, lambda: lines() > before + 20)
    urgent = submit("sleep 1", "--partition=high", "--cpus-per-task=2")
    reach(job, lambda: slurm.job(job)["JobState"] == "COMPLETED")
    assert slurm.job(urgent)["JobState"] == "COMPLETED"
    assert slurm.job(job)["Restarts"] == "2"
    assert [attempt["status"] for attempt in attempts()] == ["stopped", "stopped", "finished"]
    assert [attempt.get("error") for attempt in attempts()][:2] == ["stopped by SIGUSR1", "stopped by SIGTERM"]
    assert_same_results(folder, alone)


def test_a_member_of_a_sweep_goes_back_into_the_queue(slurm, environment, reach, tmp_path):
    sweep = tmp_path / "sweep"
    command = [sys.executable, "train.py", "-m", *TRAIN, f"ckpt_path={tmp_path}/none", *ON_SLURM]
    process = subprocess.Popen(
        [*command, "training.seed=1", f"hydra.sweep.dir={sweep}"], cwd=REPOSITORY, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    folder = sweep / "single"
    end = time.monotonic() + 90
    while not (folder / "logs.json").exists() or len((folder / "logs.json").read_text().splitlines()) < 10:
        assert time.monotonic() < end and process.poll() is None, process.communicate(timeout=5)
        time.sleep(0.1)
    number = read_record(folder)["attempts"][0]["process"]["slurm_job"]
    slurm.run("scancel", "--signal=USR2", number)  # what submitit lets SLURM send before the time is over
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "1 of 1 members finished" in said
    assert slurm.job(number)["Restarts"] == "1"
    attempts = read_record(folder)["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["stopped", "finished"]
    assert attempts[0]["saved"]
    (log,) = sweep.glob(".submitit/*/*_0_log.out")
    assert "resuming" in log.read_text()


def test_a_cancelled_job_stays_cancelled(slurm, submit, reach, tmp_path):
    folder = tmp_path / "run"
    job = submit(f"srun {script('train.py', *TRAIN, f'ckpt_path={tmp_path}/none', f'hydra.run.dir={folder}')}")
    reach(job, lambda: (folder / "logs.json").exists())
    slurm.run("scancel", job)
    reach(job, lambda: (read_record(folder) or {}).get("status") == "stopped")
    reach(job, lambda: slurm.job(job)["JobState"] == "CANCELLED")
    assert slurm.job(job)["Restarts"] == "0"


def test_two_tasks_train_one_model(slurm, environment, submit, reach, tmp_path):
    alone, folder = tmp_path / "alone", tmp_path / "run"
    arguments = (*STATE, f"ckpt_path={tmp_path}/none")
    undisturbed = [sys.executable, "train.py", *arguments, f"hydra.run.dir={alone}"]
    subprocess.run(undisturbed, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    line = script("train.py", *arguments, f"hydra.run.dir={folder}")
    job = submit(f"srun {line}", "--ntasks=2")
    reach(job, lambda: slurm.job(job)["JobState"] == "COMPLETED")
    lines, expected = (without_times(each / "logs.json") for each in (folder, alone))
    assert (tmp_path / "job.txt").read_text().count("finished") == 1  # one of them speaks
    assert [line.get("step") for line in lines] == [line.get("step") for line in expected]
    for line, other in zip(lines, expected, strict=True):
        assert {key: value for key, value in line.items() if "loss" in key} == pytest.approx(
            {key: value for key, value in other.items() if "loss" in key}, rel=1e-3
        )
