"""``torchrun`` and ``accelerate launch`` as users type them, and processes as these start them."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest

from tests.processes import environment
from tests.training.tiny import STATE
from utils.loggers import read_json_lines

TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--standalone"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu"]
TRAIN = [*STATE, "training.max_batches=4", "training.val_batches=1", "training.num_reconstruct_samples=0"]


@pytest.fixture
def launch(forked, monkeypatch, data_root):
    """Start a command, with a launcher before it or without."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return forked


@pytest.fixture
def pair_of(launch):
    """Start a command twice, as the processes of one run."""

    def begin(*command):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        return [launch(*command, env=environment(rank, 2, port)) for rank in range(2)]

    return begin


def ended(*processes):
    """Exit codes, and all that was said."""
    said = ["".join(process.communicate(timeout=180)) for process in processes]
    return [process.returncode for process in processes], "".join(said)


def steps(folder):
    return [line["step"] for line in read_json_lines(folder / "logs.json") if "loss" in line]


@pytest.mark.slow
def test_torchrun_trains_and_accelerate_plans_with_the_outcome(launch, tmp_path):
    """One log, one set of checkpoints, one set of results."""
    folder = tmp_path / "run"
    where = [f"hydra.run.dir={folder}", f"ckpt_path={tmp_path / 'none'}"]
    codes, output = ended(launch(*TORCHRUN, "train.py", *TRAIN, *where, "training.epochs=1"))
    assert codes == [0], output
    assert steps(folder) == [1, 2, 3, 4] and output.count("finished 4 steps") == 1
    plans = [f"ckpt_path={folder}", "n_evals=3", "n_plot_samples=0", "planner.max_iter=1", "device=cpu"]
    plans += ["planner.sub_planner.horizon=2", "planner.sub_planner.opt_steps=2", f"hydra.run.dir={tmp_path / 'plan'}"]
    codes, output = ended(launch(*ACCELERATE, "plan.py", "--config-name", "plan_wall.yaml", *plans))
    assert codes == [0], output
    assert json.loads((tmp_path / "plan" / "results.json").read_text())["n_evals"] == 3
    assert json.loads((tmp_path / "plan" / "run.json").read_text())["status"] == "finished"


def test_what_is_wrong_is_said_once(pair_of, tmp_path):
    codes, output = ended(*pair_of("train.py", *TRAIN, "training.batch_size=1", f"ckpt_path={tmp_path}"))
    assert all(codes)
    assert output.count("error: training.batch_size=1 is the batch of all processes together") == 1
    assert "Traceback" not in output


def test_a_sweep_of_several_processes_is_refused(pair_of, tmp_path):
    codes, output = ended(*pair_of("plan.py", "-m", "seed=1,2", f"ckpt_path={tmp_path}"))
    assert any(codes)
    assert output.count("error: a sweep (-m) starts its runs itself") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_all_and_the_run_goes_on(number, launch, pair_of, tmp_path):
    """SIGTERM to the launcher: saved once. SIGKILL to one process: the others end too; what was saved is whole."""
    folder, epochs = tmp_path / "run", 20
    where = [f"hydra.run.dir={folder}", f"ckpt_path={tmp_path / 'none'}", f"training.epochs={epochs}"]
    process = launch(*TORCHRUN, "train.py", *TRAIN, *where, "training.save_every_x_batch=2")
    deadline = time.monotonic() + 120
    while not (folder / "logs.json").exists() or len(steps(folder)) < 6:
        assert time.monotonic() < deadline and process.poll() is None, "it did not begin"
        time.sleep(0.05)
    if number == signal.SIGTERM:
        process.send_signal(number)
    else:
        os.kill(worker_of(process.pid), number)
    codes, output = ended(process)
    assert all(codes) and len(steps(folder)) < 4 * epochs
    assert output.count("saved after step") == (1 if number == signal.SIGTERM else 0)
    resumed = ("train.py", f"resume={folder}")  # another number of processes may go on
    codes, output = ended(*([launch(*resumed)] if number == signal.SIGTERM else pair_of(*resumed)))
    assert not any(codes), output
    assert steps(folder) == list(range(1, 4 * epochs + 1)), "no gap, no step twice"


def worker_of(launcher):
    """The last process that the launcher has started."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(launcher)], capture_output=True, text=True)
    return int(children.stdout.split()[-1])
