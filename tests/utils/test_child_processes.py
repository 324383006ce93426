import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils import child_processes
from utils.child_processes import end_with_parent, run_command

ROOT = Path(__file__).parents[2]
CHILD = """
import os, signal, sys, time
from utils.child_processes import end_with_parent
signal.signal(signal.SIGTERM, lambda *_: open("saved", "w").close())
end_with_parent(int(sys.argv[1]), {grace})
print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_command_says_what_it_has_to_say():
    done = run_command(sys.executable, "-c", "print('x'); raise SystemExit(3)")
    assert (done.returncode, done.stdout) == (3, "x\n")


@pytest.mark.parametrize(
    ("command", "words"), [(["no-such-program"], "No such file"), (["sleep", "60"], "timed out after 0.1 seconds")]
)
def test_a_command_that_cannot_be_run_has_failed(command, words):
    done = run_command(*command, timeout=0.1)
    assert done.returncode == 1 and words in done.stderr


@pytest.mark.parametrize(("grace", "saves"), [(0.0, False), (0.5, True)])
def test_a_process_ends_with_its_parent(tmp_path, grace, saves):
    parent = subprocess.Popen(
        ["sh", "-c", '"$0" -c "$1" $$; true', sys.executable, CHILD.format(grace=grace)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline()
    begin = time.monotonic()
    parent.kill()
    assert parent.stdout.read() == b""  # it is closed once the child has ended
    assert time.monotonic() - begin < 30
    parent.wait()
    assert (tmp_path / "saved").exists() == saves


def test_without_a_limit_a_process_is_told_and_saves_in_its_own_time(monkeypatch):
    told = []
    monkeypatch.setattr(child_processes, "PARENT_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(os, "kill", lambda *what: told.append(what))
    end_with_parent(0, grace=None)  # nobody's child
    deadline = time.monotonic() + 10
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    assert told == [(os.getpid(), signal.SIGTERM)]
