import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.job import Job
from launch.jobs import run_jobs
from launch.provenance import Provenance
from utils.revision import revision


def append(path: str, text: str) -> str:
    print("working on", text)
    with Path(path).open("a") as file:
        file.write(text)
    return text.upper()


def fail(why: str) -> None:
    raise ValueError(why)


def test_jobs_wait_for_what_they_need_and_return_results(tmp_path):
    seen = str(tmp_path / "seen")
    jobs = [
        Job("third", append, {"path": seen, "text": "c"}, ["second"]),
        Job("second", append, {"path": seen, "text": "b"}, ["first"]),
        Job("first", append, {"path": seen, "text": "a"}),
    ]
    assert run_jobs(jobs, tmp_path / "stages", 2) == {"first": "A", "second": "B", "third": "C"}
    assert Path(seen).read_text() == "abc"
    assert "working on a" in (tmp_path / "stages" / "first.log").read_text()
    made = Provenance.read(tmp_path / "stages", ["first", "second", "third"])
    assert made.revisions == [revision()] and 0 < made.seconds < 60

    # what is done is not done again; what is asked differently is
    jobs[1] = Job("second", append, {"path": seen, "text": "x"}, ["first"])
    assert run_jobs(jobs, tmp_path / "stages", 2)["second"] == "X"
    assert Path(seen).read_text() == "abcx"


def test_a_result_that_is_not_as_it_was_kept_is_called_broken(tmp_path):
    (tmp_path / "first.json").write_text('{"made": {"revision": 1}}')
    with pytest.raises(ValueError, match=r"first\.json does not say when .*; delete it"):
        Provenance.read(tmp_path, ["first"])


def test_a_failing_job_is_named_and_all_that_do_not_wait_for_it_are_run_and_kept(tmp_path):
    jobs = [
        Job("good", append, {"path": str(tmp_path / "seen"), "text": "a"}),
        Job("bad", fail, {"why": "the disk is made of cheese"}, ["good"]),
        Job("never", append, {"path": str(tmp_path / "seen"), "text": "b"}, ["bad"]),
        Job("nor this", append, {"path": str(tmp_path / "seen"), "text": "c"}, ["good", "never"]),
        Job("worse", fail, {"why": "the mouse is in the house"}, ["good"]),
        Job("later", append, {"path": str(tmp_path / "seen"), "text": "d"}, ["good"]),
    ]
    with pytest.raises(ValueError, match=r"stage bad failed: the disk is made of cheese; .*bad\.log \(1 more failed\)"):
        run_jobs(jobs, tmp_path / "stages", 1)
    kept = {path.stem: json.loads(path.read_text())["result"] for path in (tmp_path / "stages").glob("*.json")}
    assert kept == {"good": "A", "later": "D"} and (tmp_path / "seen").read_text() == "ad"


SLEEPER = """
import sys, time
from pathlib import Path
from launch.job import Job
from launch.jobs import run_jobs
from launch.provenance import Provenance
from utils.interrupts import StopSignals
from utils.revision import revision

def sleep(path):
    Path(path).write_text(str(__import__("os").getpid()))
    with StopSignals() as stop:
        for _ in range(600):
            time.sleep(0.1)
            stop.raise_if_received()

if __name__ == "__main__":
    run_jobs([Job(name, sleep, {"path": f"{sys.argv[1]}/{name}"}) for name in ("pid", "next")], Path(sys.argv[1]), 1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, number):
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment, stderr=subprocess.DEVNULL)
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 60)
    worker = int((tmp_path / "pid").read_text())
    parent.send_signal(number)
    assert parent.wait(timeout=60) != 0
    until(lambda: not alive(worker), 60)
    assert not (tmp_path / "next").exists(), "a stage that had not begun does not begin any more"


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def alive(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_time_in_which_nothing_ran_does_not_count(tmp_path):
    for name, begin, end in (("a", 100, 110), ("b", 105, 120), ("c", 1000, 1001)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"made": {"revision": "x", "begin": begin, "end": end}}))
    found = Provenance.read(tmp_path, ["c", "a", "b"])
    assert (found.revisions, found.date, found.seconds) == (["x"], "1970-01-01", 21)
    (tmp_path / "d.json").write_text("{}")
    assert Provenance.read(tmp_path, ["a", "d"]).revisions == ["unknown", "x"], "kept by an earlier version"
