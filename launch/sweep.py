"""Sweeps, of which every member is the plain command in a process of its own: what ends one ends no other."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig

from launch import startup
from launch.conf import ROOT
from launch.gpus import one_gpu
from launch.grammar import is_sweep, quoted
from launch.record import (
    FAILED,
    FINISHED,
    STOPPED,
    attempts_in_vain,
    confirm,
    is_finished,
    mark_ended,
    read_record,
    why_busy,
)
from launch.sweep_names import NO_LOG_FILE, count_members, sweep_folder
from utils import slurm
from utils.child_processes import end_with_parent
from utils.files import own_file
from utils.interrupts import StopRequested, StopSignals
from utils.links import LinkError, refuse_links
from utils.reading.opening import failure_reason
from utils.revision import revision

log = logging.getLogger(__name__)

# in the environment: a member's parent, the sweep's process, and a file that is there once the sweep has to stop
MEMBER, SWEEP, STOP = "WORLD_MODELS_SWEEP_MEMBER", "WORLD_MODELS_SWEEP", "WORLD_MODELS_SWEEP_STOP"
OUTPUT = "output.log"
NOT_A_MEMBERS = (
    "hydra.sweep", "hydra/sweep", "hydra/launcher", "hydra.launcher", "hydra.run", "hydra.mode", "hydra.job.",
    "hydra.output",
)  # fmt: skip


def run_sweep(main: Callable[[], Any], argv: Sequence[str]) -> None:
    """Call ``main``; if ``argv`` asked for a sweep, say afterwards which members failed.

    Raises:
        SystemExit: With status 1 if not all members finished; what ran beside them is kept.
        StopRequested: After a signal; the members saved first.
    """
    if not is_sweep(argv):
        main()
        return
    startup.raise_on_interrupt()  # before its handlers are replaced and, after a first signal, restored
    folder = sweep_folder(argv)
    # a launcher's workers and jobs unpickle our functions, wherever they are started
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as temporary, _SweepStop(Path(temporary) / "stop") as stop:
        os.environ |= {SWEEP: str(os.getpid()), STOP: str(stop.file)}
        try:
            main()
            stop.raise_if_received()
        except (KeyboardInterrupt, StopRequested):
            log.warning("what was running is saved; continue with: python %s resume=%s", sys.argv[0], folder or "...")
            raise
        except Exception as error:  # of the launcher, a lost worker for instance: what it knew of the others is gone
            log.error("the launcher ended early: %s", failure_reason(error))
            if folder is None:
                raise
            summarize(folder, count_members(argv))
            sys.exit(1)
    if folder is not None and not summarize(folder, count_members(argv)):
        sys.exit(1)


class _SweepStop(StopSignals):
    """Tells the workers of a launcher too, through a file: to a worker that is killed, no member could tell its end."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.file.write_text(str(number))
        super()._handle(number, frame)


def summarize(folder: Path, expected: int | None) -> bool:
    """Log how many members finished, and of each other one why not; True if all did."""
    records = {path.parent: read_record(path.parent) for path in sorted(folder.rglob("run.json"))}
    # the last attempt counts: one with other settings may have failed where an earlier one has left its results
    last = {at: record["attempts"][-1] if record else None for at, record in records.items()}
    unfinished = {at: attempt for at, attempt in last.items() if attempt is None or attempt["status"] != FINISHED}
    missing = max(0, (expected or 0) - len(records))
    log.info("sweep %s: %d of %d members finished", folder, len(records) - len(unfinished), len(records) + missing)
    for at, attempt in unfinished.items():
        status = "unreadable" if attempt is None else attempt["status"]
        why = f": {attempt['error']}" if attempt and "error" in attempt else ""
        log.error("%s %s%s", status, at.relative_to(folder), why)
    if missing:
        log.error("%d have not begun", missing)
    if unfinished or missing:
        log.error("run the rest with the same command, or: python %s resume=%s", Path(sys.argv[0]).name, folder)
    return bool(records) and not unfinished and not missing


def run_member(script: str, config: Mapping[str, Any]) -> Any:
    """Run the member that Hydra has composed, unless it is finished; return its result, None if it failed.

    Args:
        script: Of the entry.
        config: Of the member, as plain data.

    Raises:
        StopRequested: After a signal, once the member has saved; it goes on when the sweep is run again.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        refuse_links(folder, below=Path(HydraConfig.get().sweep.dir))
    except LinkError as error:
        log.error("%s", error)
        return None
    record = read_record(folder)
    if record is not None and is_finished(record, config):
        log.info("%s is finished: skipped%s", folder.name, _other_revision(record))
        confirm(folder, record)
        return record.get("result")
    if record is not None and (busy := why_busy(record)):
        log.warning("%s is being run by %s: skipped", folder.name, busy)
        return None
    if _asked_to_stop() is not None:
        return None
    with slurm.requeued_when_stopped(is_outermost=_in_slurm()), one_gpu(config.get("device")) as gpu:
        begin = time.monotonic()
        code, signalled = _run(_command(script, folder), folder, gpu)
        if signalled is not None:
            _mark(folder, STOPPED, "stopped before it had begun")
            if _is_worker():  # the sweep's own process knows, and a launcher would kill the other workers for it
                return None
            raise StopRequested(signalled, attempts_in_vain(read_record(folder)))
    return _outcome(folder, code, time.monotonic() - begin)


def _outcome(folder: Path, code: int, seconds: float) -> Any:
    if code:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        _mark(folder, FAILED, how)
        record = read_record(folder)
        error = record["attempts"][-1].get("error") if record else None
        more = f", see {OUTPUT}" if (folder / OUTPUT).exists() else ""
        log.error("%s failed: %s", folder.name, error or f"{how}{more}")
        return None
    result = (read_record(folder) or {}).get("result")
    log.info("%s finished in %.0f s: %s", folder.name, seconds, result)
    return result


def _mark(folder: Path, status: str, error: str) -> None:
    if slurm.rank() == 0:  # of several processes that are one run, one writes
        mark_ended(folder, status, error)


def _other_revision(record: Mapping[str, Any]) -> str:
    made, now = record["environment"]["revision"], revision()
    return "" if made == now else f" (by revision {made}, this is {now}; delete its folder to run it again)"


def _command(script: str, folder: Path) -> list[str]:
    """Write the member as a plain command."""
    hydra = HydraConfig.get()
    task = [text for text in hydra.overrides.task if not text.startswith("cluster=")]
    own = [text for text in hydra.overrides.hydra if not text.lstrip("+~").startswith(NOT_A_MEMBERS)]
    own = [text for text in own if text != NO_LOG_FILE]
    here = [f"hydra.run.dir={quoted(str(folder))}", "hydra.mode=RUN"]
    sources = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    added = [word for path in sources for word in ("--config-dir", path)]
    return [sys.executable, script, *added, "--config-name", str(hydra.job.config_name), *task, *own, *here]


def _in_slurm() -> bool:
    """Whether this is a process that submitit has started in a job."""
    return "SUBMITIT_EXECUTOR" in os.environ


def _is_worker() -> bool:
    """Whether this process is one of several that a launcher has started beside each other on this machine."""
    return os.environ.get(SWEEP) != str(os.getpid()) and not _in_slurm()


def _asked_to_stop() -> int | None:
    """Return the signal that the sweep's process, somewhere else, was sent; SIGTERM if it is gone without a word."""
    if _is_worker() and SWEEP in os.environ and not Path("/proc", os.environ[SWEEP]).exists():
        return signal.SIGTERM
    try:
        return int(Path(os.environ[STOP]).read_text() or signal.SIGTERM)
    except (OSError, KeyError, ValueError):
        return None


def _run(command: Sequence[str], folder: Path, gpu: Mapping[str, str]) -> tuple[int, int | None]:
    """Run a process that is told once of the first signal to stop; return its exit status and that signal."""
    environment = {**os.environ, **gpu, MEMBER: str(os.getpid())}
    with contextlib.ExitStack() as stack:
        output = None
        if _is_worker():  # several write at once: each to a file of its own
            environment["TQDM_MININTERVAL"] = "30"  # there, every state of a bar stays
            own_file(folder / OUTPUT)
            output = stack.enter_context((folder / OUTPUT).open("ab"))
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches workers too, and idle ones would die of it
        stop = stack.enter_context(StopSignals())
        # a session of its own: Ctrl-C in a terminal would reach it twice, and twice means at once
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        told: int | None = None
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.1), told
            if told is None and (told := stop.received or _asked_to_stop()) is not None:
                process.send_signal(told)


def end_with_sweep() -> None:
    """Let a member save and go if the process that started it is killed without a word."""
    if MEMBER in os.environ:
        end_with_parent(int(os.environ[MEMBER]), grace=None)
