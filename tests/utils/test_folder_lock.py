"""One folder, one run: who holds it is known, and the kernel gives it back."""

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builders import REPOSITORY
from utils import folder_lock
from utils.folder_lock import LOCK, FolderInUseError, hold, holding, release
from utils.process_identity import birth, this_process

HOLDER = r"""
import multiprocessing, os, sys, time
from pathlib import Path
from utils.folder_lock import Shares, hold, keep

def wait(shares=None):
    os.write(1, b"%d\n" % os.getpid())  # in one piece
    time.sleep(60)

if __name__ == "__main__":
    hold(Path(sys.argv[1]))
    if sys.argv[2] == "spawned":
        multiprocessing.get_context("spawn").Process(target=wait, args=(Shares(),)).start()
    elif sys.argv[2] == "forked" and os.fork() == 0:
        wait()
    wait()
"""


@pytest.fixture
def holder(tmp_path, spawn):
    """Start a process that holds ``tmp_path / "run"``; returns it and the numbers of it and its child."""
    script = tmp_path / "holder.py"
    script.write_text(HOLDER)

    def start(kind):
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        process = spawn([sys.executable, str(script), str(tmp_path / "run"), kind], env=environment)
        children = {int(process.stdout.readline()) for _ in range(1 if kind == "alone" else 2)} - {process.pid}
        return process, *children

    return start


def refused(folder):
    with pytest.raises(FolderInUseError) as error:
        hold(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_holder_is_named_and_when_it_is_killed_the_folder_is_free_at_once(holder, tmp_path):
    process, reader = holder("forked")
    said = refused(tmp_path / "run")
    host = this_process()["host"]
    expected = (
        rf"run folder .*run is in use by process {process.pid} on {re.escape(host)} since \d{{4}}-.*: wait for it"
    )
    assert re.match(expected, said) and "or choose another hydra.run.dir" in said
    assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == process.pid
    process.kill()
    process.wait()
    with holding(tmp_path / "run"):  # a forked reader of samples that still lives does not matter
        assert Path(f"/proc/{reader}").exists()
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()
    os.kill(reader, 9)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_child_that_goes_on_writing_keeps_the_folder(holder, tmp_path):
    process, child = holder("spawned")
    process.kill()
    process.wait()
    said = refused(tmp_path / "run")
    assert f"in use by process {child}, started by process {process.pid}, which has ended" in said
    os.kill(child, 9)
    until = time.monotonic() + 30
    while True:  # the kernel lets go of a dead process's files a moment after its end
        try:
            with holding(tmp_path / "run"):
                return
        except FolderInUseError:
            assert time.monotonic() < until


def test_what_was_made_for_a_lock_goes_with_it_and_a_second_time_is_no_second_lock(tmp_path):
    folder = tmp_path / "a" / "b"
    assert hold(folder)
    assert not hold(tmp_path / "a" / ".." / "a" / "b")
    with holding(folder):
        pass
    assert (folder / LOCK).exists()
    release(folder)
    assert list(tmp_path.iterdir()) == []
    with holding(folder):
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""

    def flock(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def left_behind(folder, **changes):
    folder.mkdir(exist_ok=True)
    (folder / LOCK).write_text(json.dumps({**this_process(), "since": "yesterday", **changes}))


def test_without_locks_there_is_one_warning_and_the_file_decides(no_locks, tmp_path, caplog):
    folder = tmp_path / "run"
    for _ in range(2):
        with holding(folder):
            (folder / "kept").touch()
    assert caplog.text.count("its file system has no locks (No locks available)") == 1
    left_behind(folder, birth="1")  # the number is another process's by now
    with holding(folder):
        pass
    left_behind(folder, host="elsewhere", pid=7)
    assert f"process 7 on elsewhere since yesterday (if that is gone, delete {folder / LOCK})" in refused(folder)
    assert (folder / LOCK).exists()
    running = subprocess.Popen(["sleep", "60"])
    try:
        left_behind(folder, pid=running.pid, birth=birth(running.pid))
        assert f"in use by process {running.pid}" in refused(folder)
    finally:
        running.kill()
        running.wait()


def test_where_other_machines_do_not_see_a_lock_the_file_decides_too(tmp_path, monkeypatch):
    left_behind(tmp_path, host="elsewhere", pid=7)
    monkeypatch.setattr(folder_lock, "_mount_options", lambda folder: {"rw", "local_lock=all"})
    assert "process 7 on elsewhere" in refused(tmp_path)
    monkeypatch.setattr(folder_lock, "_mount_options", lambda folder: {"rw", "local_lock=none"})
    with holding(tmp_path):  # it would have it, were it still there
        pass
