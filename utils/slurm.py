"""Processes inside a SLURM job: told to stop, they save and put their job back into the queue."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator

from utils.child_processes import run_command
from utils.interrupts import JOB_SIGNALS, StopRequested, in_slurm_job, stopping_at_once

log = logging.getLogger(__name__)

KILLED_WITHIN = 60.0  # seconds after a requeue in which SLURM tells the job's processes to end

MOST_IN_VAIN = 3
"""Attempts in a row that saved nothing before their time was over; one more would be in vain too."""


def adopt_srun() -> int:
    """Return the number of this process among those of one run, from 0.

    What ``srun`` says of several that it has started is said again in torchrun's words, which torch reads.
    """
    names = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")
    if "WORLD_SIZE" not in os.environ and all(name in os.environ for name in names):
        count, number, local, nodes, job = (os.environ[name] for name in names)
        if int(count) > 1:
            os.environ |= {"RANK": number, "WORLD_SIZE": count, "LOCAL_RANK": local}
            os.environ.setdefault("MASTER_ADDR", _first_host(nodes))
            # jobs and steps may share a node
            port = 20000 + (61 * int(job) + int(os.environ.get("SLURM_STEP_ID", "0"))) % 12000
            os.environ.setdefault("MASTER_PORT", str(port))
    return int(os.environ.get("RANK", "0")) if os.environ.get("WORLD_SIZE", "1") != "1" else 0


def _first_host(nodes: str) -> str:
    """Return the first host of a list in SLURM's notation, like ``gpu[07-09,12]``."""
    if os.environ.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    first = re.match(r"([^,\[]*)(?:\[(\w+)[^\]]*\])?([^,\[]*)", nodes)
    assert first is not None, "every part of the pattern may be empty"
    return "".join(part or "" for part in first.groups())


@contextlib.contextmanager
def requeued_when_stopped(is_outermost: bool = True) -> Iterator[None]:
    """Requeue the SLURM job of this process, if it has one, after a StopRequested that SLURM's signals led to.

    Own ``scontrol requeue`` and not submitit's, which would act in the middle of a step: a signal handler, it saves
    nothing. Here the block ends first, with everything saved; and a hand-written batch script is served as well.

    Args:
        is_outermost: False in a part of what the job does; its caller requeues, once the other parts have saved.
    """
    if not (is_outermost and in_slurm_job()):
        yield
        return
    with stopping_at_once(JOB_SIGNALS):
        try:
            yield
        except StopRequested as stop:
            if stop.number != signal.SIGINT:
                _requeue(stop)
            raise


def _requeue(stop: StopRequested) -> None:
    told = threading.Event()
    for number in JOB_SIGNALS:  # SLURM sends several, and repeats them
        signal.signal(number, lambda number, frame: told.set())
    if rank() > 0:
        sys.exit(0)  # with any other status, SLURM may take the first task down before it has requeued the job
    name = job_name()
    if stop.attempts_in_vain >= MOST_IN_VAIN:
        log.error(
            "job %s is not requeued: its last %d attempts saved nothing before their time was over; give it more "
            "(hydra.launcher.timeout_min, sbatch --time)", name, stop.attempts_in_vain,
        )  # fmt: skip
    elif reason := why_not_requeue():
        log.warning("job %s is not requeued: %s", name, reason)
    else:
        log.warning("%s: job %s goes back into the queue", signal.Signals(stop.number).name, name)
        told.clear()
        if requeue():  # its other tasks are to be ended by SLURM, not because this one went first
            told.wait(KILLED_WITHIN)


def rank() -> int:
    """Number of this task of its job step; 0 outside."""
    return int(os.environ.get("SLURM_PROCID", "0")) if "SLURM_STEP_ID" in os.environ else 0


def job_name() -> str:
    """Name the job as ``scontrol`` knows it: "123", or "123_4" in an array."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]


def is_running(job: str) -> bool:
    """Whether a job, by its number, has processes now."""
    shown = run_command("squeue", "--noheader", "--format=%T", f"--jobs={job}").stdout.split()
    return any(state in ("RUNNING", "COMPLETING", "SUSPENDED") for state in shown)


def why_not_requeue() -> str | None:
    """Say why the job of this process must not be put back in the queue; None if it may.

    It may if SLURM takes its nodes away: at the end of its time, for a job of higher priority, or by a signal that
    somebody sent to a job that still runs. A job that was cancelled stays cancelled.
    """
    shown = run_command("scontrol", "show", "job", "--oneliner", job_name())
    facts = dict(word.split("=", 1) for word in shown.stdout.split() if "=" in word)
    if shown.returncode or "JobState" not in facts:
        return f"scontrol does not know the job: {shown.stderr.strip()}"
    if facts.get("BatchFlag") != "1":
        return "it is interactive"
    if facts.get("Requeue") == "0":
        return "it was submitted with --no-requeue"
    is_preempted = facts.get("PreemptTime", "None") != "None"
    if facts["JobState"] == "RUNNING" or facts.get("Reason") == "TimeLimit" or is_preempted:
        return None
    return f"it is {facts['JobState'].lower()}"


def requeue() -> bool:
    """Put the job of this process back in the queue, which kills its processes; return False if that was refused."""
    done = run_command("scontrol", "requeue", job_name())
    if done.returncode:
        log.error("SLURM did not requeue job %s: %s", job_name(), (done.stderr or done.stdout).strip())
        return False
    return True
