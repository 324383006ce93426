"""Worker processes against every way in which their parent may end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPT = """
import os, signal, sys, time
from envs.episode_player import PlayTask, ResetTask
from envs.worker_pool import WorkerPool
from tests.envs.toy_simulator import HANG, ToySimulator

shapes = {"states": ((1, 3), "f8")}
pool = WorkerPool(1, "tests.envs.toy_simulator:ToySimulator", 8)
pool.arrays(shapes)["states"][...] = 0.5
assert pool.run(shapes, [ResetTask([0], [ToySimulator.default_layout()])]) is None
print(pool._workers[0].process.pid, flush=True)

def play(first_action):
    shapes = {"actions": ((1, 1, 2), "f4"), "visited": ((1, 1, 3), "f8"), "frames": ((1, 1, 3, 8, 8), "u1")}
    pool.arrays(shapes)["actions"][...] = first_action
    return pool.run(shapes, [PlayTask([0], [0], 1)])
"""
SLEEP = "time.sleep(60)"
ENDINGS = {
    "return": ("", None, 0),
    "error": ("raise SystemError('on purpose')", None, 1),
    "sudden exit": ("os._exit(6)", None, 6),
    "ctrl-c while busy": ("play(HANG)", signal.SIGINT, -signal.SIGINT),
    "terminated while busy": ("play(HANG)", signal.SIGTERM, -signal.SIGTERM),
    "killed while idle": (SLEEP, signal.SIGKILL, -signal.SIGKILL),
    "killed while busy": ("play(HANG)", signal.SIGKILL, -signal.SIGKILL),
    "killed, leaving a fork": (f"os.fork() or time.sleep(3) or os._exit(0); {SLEEP}", signal.SIGKILL, -signal.SIGKILL),
}


def run_script(ending, number, group=False):
    """Run the script to its end; returns its process, its worker and the seconds it took to end."""
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + ending],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, start_new_session=True,
    )  # fmt: skip
    worker = int(script.stdout.readline())
    if number is not None:  # else both may have ended already
        for process in (script.pid, worker):
            maps = Path(f"/proc/{process}/maps").read_text()
            assert "/memfd:episodes" in maps
            assert "/dev/shm" not in maps  # memory with a name could be left behind
        time.sleep(0.2)
        (os.killpg if group else os.kill)(script.pid, number)
    begin = time.monotonic()
    script.wait(20)
    return script, worker, time.monotonic() - begin


def wait_for_the_end_of(worker, seconds):
    deadline = time.monotonic() + seconds
    while is_running(worker):
        assert time.monotonic() < deadline, "the worker is still running"
        time.sleep(0.02)


def is_running(process):
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_of_a_worker_whose_parent_ended(ending):
    source, number, code = ENDINGS[ending]
    script, worker, seconds = run_script(source, number)
    assert script.returncode == code
    assert seconds < 15, "it would have slept for a minute"
    wait_for_the_end_of(worker, 15)
    if "fork" not in ending:  # which still holds the pipe
        errors = script.stderr.read()
        assert "resource_tracker" not in errors
        assert errors.count("Traceback") == (ending == "error" or "ctrl-c" in ending), errors


def test_ctrl_c_in_a_terminal_does_not_reach_the_worker():
    """The whole process group gets the signal; the script goes on after it, and so must its worker."""
    source = "signal.signal(signal.SIGINT, lambda *_: None)\ntime.sleep(1)\nprint(play(0.0), flush=True)"
    script, worker, _ = run_script(source, signal.SIGINT, group=True)
    assert (script.returncode, script.stdout.read(), script.stderr.read()) == (0, "None\n", "")
    wait_for_the_end_of(worker, 15)
