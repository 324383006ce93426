"""Jobs that wait for each other and run side by side in worker processes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from launch.provenance import Made
from utils.child_processes import end_with_parent
from utils.files import own_file, write_json
from utils.folder_lock import Shares, keep
from utils.interrupts import StopRequested, StopSignals
from utils.machine import available_cores
from utils.printable import printable_logs
from utils.reading.json_file import RESULTS_BYTES, read_json
from utils.revision import revision

MOST_WORKERS = 3  # if nothing is said: each takes 1.2 GB, and all should fit into 4
GRACE_SECONDS = 30.0  # for a worker to finish its step and save


@dataclass(frozen=True)
class Job:
    """A piece of work whose JSON result is kept.

    Attributes:
        name: Unique; also that of its result and its log file.
        run: Picklable function of ``arguments``; returns something JSON can hold.
        arguments: Of ``run``; what JSON can hold.
        after: Names of the jobs that must be done first.
    """

    name: str
    run: Callable[..., Any]
    arguments: Mapping[str, Any]
    after: Sequence[str] = field(default_factory=tuple)

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a kept result to be used again."""
        return {"function": self.run.__qualname__, "arguments": json.loads(json.dumps(self.arguments))}


def workers_or_default(num_workers: int | None) -> int:
    """Jobs at a time: as many as are asked for, else one per core, up to ``MOST_WORKERS``."""
    return num_workers or min(available_cores(), MOST_WORKERS)


def kept_results(jobs: Sequence[Job], folder: Path) -> dict[str, Any]:
    """Name -> result of those ``jobs`` that need not be run again."""
    return {job.name: kept["result"] for job in jobs if (kept := _kept(folder, job)) is not None}


def run_jobs(jobs: Sequence[Job], folder: Path, num_workers: int) -> dict[str, Any]:
    """Run ``jobs`` in dependency order, skipping those whose result is kept in ``folder``; return name -> result.

    Raises:
        ValueError: Naming the first job that failed, why, and its log; the others' results are kept.
        StopRequested: After a signal; what runs then saves its own state first.
    """
    results = kept_results(jobs, folder)
    todo = [job for job in jobs if job.name not in results]
    running: dict[Future[Any], Job] = {}
    code = revision()
    context = multiprocessing.get_context("spawn")  # not fork: torch's thread pools do not survive it
    workers = ProcessPoolExecutor(num_workers, context, initializer=_begin, initargs=(Shares(), os.getpid()))
    with workers as pool, StopSignals() as stop, _bar(jobs, results) as bar:
        try:
            while todo or running:
                for job in [job for job in todo if all(name in results for name in job.after)]:
                    todo.remove(job)
                    running[pool.submit(_work, job, folder)] = job
                bar.set_postfix_str(" + ".join(job.name for job in list(running.values())[:num_workers]))
                stop.raise_if_received()
                for future in wait(running, timeout=1.0, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    results[job.name], begin, end = _result(future, job, folder)
                    made = {"made": Made(code, begin, end).as_json(), "result": results[job.name]}
                    write_json(folder / f"{job.name}.json", job.identity | made)
                    bar.update()
                stop.raise_if_received()
        except BaseException:
            for worker in multiprocessing.active_children():
                worker.terminate()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results


def _bar(jobs: Sequence[Job], results: Mapping[str, Any]) -> Any:
    form = "{n_fmt}/{total_fmt} stages |{bar:20}| {elapsed}{postfix}"
    return tqdm(total=len(jobs), initial=len(results), bar_format=form)


def _kept(folder: Path, job: Job) -> dict[str, Any] | None:
    path = folder / f"{job.name}.json"
    if not path.exists():
        return None
    kept = read_json(path, dict, "delete it, and this stage is worked again", RESULTS_BYTES)
    is_same = {key: kept.get(key) for key in job.identity} == job.identity
    return kept if is_same and "result" in kept else None


def _result(future: Future[tuple[Any, float, float]], job: Job, folder: Path) -> tuple[Any, float, float]:
    try:
        return future.result()
    except Exception as error:
        raise ValueError(f"stage {job.name} failed: {error}; its output is in {folder / job.name}.log") from error


def _begin(shares: object, parent: int) -> None:
    """Let a worker of a parent that was killed save and end; the folder is in use until then."""
    keep(shares)
    end_with_parent(parent, GRACE_SECONDS)


def _work(job: Job, folder: Path) -> tuple[Any, float, float]:
    """Do a job in a worker, its output in its log file; return its result, and when it began and ended."""
    folder.mkdir(parents=True, exist_ok=True)
    own_file(folder / f"{job.name}.log")
    with (folder / f"{job.name}.log").open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
        printable_logs()
        logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", force=True)
        begin = time.time()
        try:
            return job.run(**job.arguments), begin, time.time()
        except StopRequested as stopped:
            raise RuntimeError(f"stopped by signal {stopped.number}") from None  # a pool does not forward SystemExit
