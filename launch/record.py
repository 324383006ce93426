"""Record of a run in its folder: ``run.json``, written when the run starts and when it ends."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from utils import slurm
from utils.files import write_json
from utils.process_identity import is_here, runs_here, this_process
from utils.reading.json_file import read_json
from utils.runtime import describe_environment
from utils.settings import same_settings

FILENAME = "run.json"
RUNNING, FINISHED, FAILED, STOPPED = "running", "finished", "failed", "stopped"
FREE = ("run_dir", "device", "num_threads", "memory_budget_gb", "method.memory_budget_gb", "disk_patience_minutes",
        "logger", "env.num_workers")  # fmt: skip
"""Settings that do not change what a run comes to, so that a finished one need not be run again for them."""


class RunRecord:
    """The record of a run, to which each attempt at it (the first, every resumption) adds itself.

    An attempt with other settings does not replace what the folder says until it has come to its end: most are refused.

    Args:
        folder: Of the run.
        config: All settings, as plain data.
        overrides: Those of its command line.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], overrides: Sequence[str] = ()) -> None:
        self.folder, self._before = folder, read_record(folder)
        config = json.loads(json.dumps(config, default=str))
        environment = describe_environment()
        command = f"python {shlex.join(sys.argv)}"
        self._attempt: dict[str, Any] = {"status": RUNNING, "started": _now(), "command": command}
        self._attempt |= {"revision": environment["revision"], "process": this_process()}
        self._about = {"command": command, "overrides": [*overrides], "config": config, "environment": environment}
        changed = same_settings(self._before["config"], config, ("run_dir",)) if self._before else []
        if changed:
            self._attempt["changed"] = changed
        self._is_other = bool(changed)
        self._begin = time.monotonic()
        self._write()

    def end(self, status: str, error: str | None = None, result: Any = None, saved: bool | None = None) -> None:
        """Write down how the attempt ended.

        Args:
            status: FINISHED, FAILED, or STOPPED, to be continued.
            error: One line.
            result: What the run returned, a number or None.
            saved: Whether the attempt has kept any of its work; where that is not obvious.
        """
        self._attempt |= {"status": status, "ended": _now(), "seconds": round(time.monotonic() - self._begin, 1)}
        said = {"error": error, "result": result, "saved": saved}
        self._attempt |= {key: value for key, value in said.items() if value is not None}
        self._write()

    def _write(self) -> None:
        before, status = self._before or {}, self._attempt["status"]
        attempts = [*before.get("attempts", []), self._attempt]
        keeps_status = before.get("status") == FINISHED and status != FINISHED
        keeps_about = bool(before) and (keeps_status or (self._is_other and status != FINISHED))
        about = {key: before.get(key) for key in self._about} if keeps_about else self._about
        shown = before if keeps_status else self._attempt
        outcome = {
            key: shown[key] for key in ("status", "started", "ended", "seconds", "error", "result") if key in shown
        }
        write_json(self.folder / FILENAME, {**outcome, **about, "attempts": attempts})


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of the run in ``folder``; None if there is none that can be read."""
    try:
        if (folder / FILENAME).is_symlink():
            return None
        record = read_json(folder / FILENAME, dict)
        return record if _is_whole(record) else None
    except (OSError, ValueError):
        return None


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Whether everything that is read of a record is there and of its type."""
    attempts, overrides = record.get("attempts"), record.get("overrides") or []
    if not (isinstance(record.get("status"), str) and isinstance(record.get("config"), dict) and attempts):
        return False
    if not (isinstance(attempts, list) and isinstance(overrides, list)):
        return False
    known = all(isinstance(each, dict) and isinstance(each.get("status"), str) for each in attempts)
    return known and all(isinstance(text, str) for text in overrides)


def is_finished(record: Mapping[str, Any] | None, config: Mapping[str, Any]) -> bool:
    """Whether a run with these settings has come to its end; the one place where that is decided."""
    now = json.loads(json.dumps(config, default=str))
    return record is not None and record["status"] == FINISHED and not same_settings(record["config"], now, FREE)


def why_busy(record: Mapping[str, Any]) -> str | None:
    """Name the process that still works on a run, by its record; None if none does, and it may be continued."""
    last = record["attempts"][-1]
    process = last.get("process")
    if not isinstance(process, dict) or not {"host", "pid", "birth"} <= process.keys():
        return None  # a damaged record tells nothing
    host, number, job = process["host"], process["pid"], process.get("slurm_job")
    if last["status"] != RUNNING or (job is not None and job == os.environ.get("SLURM_JOB_ID")):
        return None  # what had this job's number before was the same job, before it was requeued
    if is_here(process):
        return f"process {number}" if runs_here(process) else None
    if job is not None:
        return f"job {job}" if slurm.is_running(job) else None
    return f"process {number} on {host} (if it is gone, delete {FILENAME})"


def confirm(folder: Path, record: Mapping[str, Any]) -> None:
    """Note that a finished run is what was asked for, where attempts with other settings have failed since."""
    attempts = record["attempts"]
    if attempts[-1]["status"] != FINISHED:
        now = {"status": FINISHED, "started": _now(), "confirmed": True, "process": this_process()}
        write_json(folder / FILENAME, {**record, "attempts": [*attempts, now]})


def mark_ended(folder: Path, status: str, error: str) -> None:
    """Write down that the last attempt ended, where it could not say so itself."""
    record = read_record(folder)
    if record is None or record["attempts"][-1]["status"] != RUNNING:
        return
    ending = {"status": status, "ended": _now(), "error": error}
    record["attempts"][-1] |= ending
    if record["status"] == RUNNING:
        record = {**record, **ending}
    write_json(folder / FILENAME, record)


def attempts_in_vain(record: Mapping[str, Any] | None) -> int:
    """Count the attempts at a run, from the last one backwards, that were stopped before they had saved anything."""
    count = 0
    for attempt in reversed(record["attempts"] if record else []):
        if attempt["status"] == FINISHED or attempt.get("saved", True):
            break
        count += 1
    return count


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
