"""``torchrun`` and ``accelerate launch`` as users type them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builders import REPOSITORY
from tests.training.tiny import STATE, make_wall
from utils.loggers import read_json_lines

BIN = Path(sys.executable).parent
TORCHRUN = [str(BIN / "torchrun"), "--nproc_per_node=2", "--master_port=0", "--standalone"]
ACCELERATE = [str(BIN / "accelerate"), "launch", "--num_processes", "2", "--cpu"]
TRAIN = [*STATE, "training.max_batches=4", "training.val_batches=1", "training.num_reconstruct_samples=0"]


@pytest.fixture(scope="module")
def wall_root(tmp_path_factory):
    return make_wall(tmp_path_factory.getbasetemp() / "tiny_data")


def launch(launcher, script, *arguments, data, cwd, **options):
    environment = {**os.environ, "DATASET_DIR": str(data), "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        environment.pop(name, None)
    command = [*launcher, str(REPOSITORY / script), *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )


def ended(process):
    output = process.communicate(timeout=180)[0]
    return process.returncode, output


def run(launcher, script, *arguments, data, cwd):
    return ended(launch(launcher, script, *arguments, data=data, cwd=cwd))


def steps(folder):
    return [line["step"] for line in read_json_lines(folder / "logs.json") if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_a_training_runs_and_its_outcome_plans(launcher, tmp_path, wall_root):
    """One log, one set of checkpoints, one set of results."""
    place = {"data": wall_root, "cwd": tmp_path}
    folder = tmp_path / "run"
    where = [f"hydra.run.dir={folder}", f"ckpt_path={tmp_path / 'none'}"]
    code, output = run(launcher, "train.py", *TRAIN, *where, "training.epochs=1", **place)
    assert code == 0, output
    assert steps(folder) == [1, 2, 3, 4] and output.count("finished 4 steps") == 1
    plans = [f"ckpt_path={folder}", "n_evals=3", "n_plot_samples=0", "planner.max_iter=1", "device=cpu"]
    plans += ["planner.sub_planner.horizon=2", "planner.sub_planner.opt_steps=2", f"hydra.run.dir={tmp_path / 'plan'}"]
    code, output = run(launcher, "plan.py", "--config-name", "plan_wall.yaml", *plans, **place)
    assert code == 0, output
    assert json.loads((tmp_path / "plan" / "results.json").read_text())["n_evals"] == 3
    assert json.loads((tmp_path / "plan" / "run.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_what_is_wrong_is_said_once(tmp_path, wall_root):
    code, output = run(
        TORCHRUN, "train.py", *TRAIN, "training.batch_size=1", f"ckpt_path={tmp_path}", data=wall_root, cwd=tmp_path
    )
    assert code != 0
    assert output.count("error: training.batch_size=1 is the batch of all processes together") == 1
    assert "Traceback" not in output.split("torch/distributed")[0]


@pytest.mark.slow
def test_a_sweep_of_several_processes_is_refused(tmp_path, wall_root):
    code, output = run(TORCHRUN, "plan.py", "-m", "seed=1,2", f"ckpt_path={tmp_path}", data=wall_root, cwd=tmp_path)
    assert code != 0
    assert output.count("error: a sweep (-m) starts its runs itself") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_all_and_the_run_goes_on(number, tmp_path, wall_root):
    """SIGTERM to the launcher: saved once. SIGKILL to one process: the others end too; what was saved is whole."""
    place = {"data": wall_root, "cwd": tmp_path}
    folder, epochs = tmp_path / "run", 40
    where = [f"hydra.run.dir={folder}", f"ckpt_path={tmp_path / 'none'}", f"training.epochs={epochs}"]
    process = launch(TORCHRUN, "train.py", *TRAIN, *where, "training.save_every_x_batch=2", **place)
    deadline = time.monotonic() + 120
    while not (folder / "logs.json").exists() or len(steps(folder)) < 6:
        assert time.monotonic() < deadline and process.poll() is None, "it did not begin"
        time.sleep(0.05)
    if number == signal.SIGTERM:
        process.send_signal(number)
    else:
        os.kill(worker_of(process.pid), number)
    code, output = ended(process)
    assert code != 0 and len(steps(folder)) < 4 * epochs
    assert output.count("saved after step") == (1 if number == signal.SIGTERM else 0)
    others = [sys.executable] if number == signal.SIGTERM else TORCHRUN  # another number of processes may go on
    code, output = run(others, "train.py", f"resume={folder}", **place)
    assert code == 0, output
    assert steps(folder) == list(range(1, 4 * epochs + 1)), "no gap, no step twice"


def worker_of(launcher):
    """The last process that the launcher has started."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launcher)], capture_output=True, text=True)
    return int(children.stdout.split()[-1])
