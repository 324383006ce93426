"""Jobs that wait for each other and run side by side in worker processes."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import torch

from launch.job import Job
from launch.job_progress import Progress
from launch.provenance import Made
from launch.workers import ClusterWorkers, LocalWorkers
from utils.files import own_file, write_json
from utils.interrupts import StopRequested, StopSignals
from utils.machine import available_cores
from utils.printable import printable_logs
from utils.reading.json_file import RESULTS_BYTES, read_json
from utils.revision import revision

MOST_WORKERS = 3  # without GPUs, if nothing is said: each takes 1.2 GB, and all should fit into 4


def workers_or_default(num_workers: int | None) -> int:
    """Jobs at a time: as many as are asked for, else one per GPU where there are several, or per core."""
    return num_workers or min(available_cores(), max(MOST_WORKERS, torch.cuda.device_count()))


def kept_results(jobs: Sequence[Job], folder: Path) -> dict[str, Any]:
    """Name -> result of those ``jobs`` that need not be run again."""
    return {job.name: kept["result"] for job in jobs if (kept := _kept(folder, job)) is not None}


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    num_workers: int,
    finished: Callable[[Mapping[str, Any]], None] | None = None,
    cluster: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run ``jobs`` in dependency order, skipping those whose result is kept in ``folder``; return name -> result.

    Args:
        jobs: In the order in which they should start.
        folder: Of results and logs.
        num_workers: Jobs at a time on this machine.
        finished: Called with all results so far whenever there are more.
        cluster: Settings of a submitit launcher of Hydra's, whose jobs do the work; None: processes of this machine.

    Where a job fails, those that do not wait for it are run nevertheless, and kept.

    Raises:
        ValueError: At the end, naming the first job that failed, why, its log, and how many others did.
        StopRequested: After a signal; what runs then saves its own state first.
    """
    results = kept_results(jobs, folder)
    todo = [job for job in jobs if job.name not in results]
    running: dict[Any, Job] = {}
    failures: list[ValueError] = []
    code = revision()
    workers = LocalWorkers(num_workers) if cluster is None else ClusterWorkers(cluster, folder)
    with workers, StopSignals() as stop, Progress(jobs, results, folder, num_workers) as progress:
        try:
            while todo or running:
                # no more than can start: a process that a signal interrupts would go on with the next that waits for it
                free = num_workers - len(running) if cluster is None else len(todo)
                ready = [job for job in todo if all(name in results for name in job.after)]
                running |= {workers.submit(_work, job, folder): job for job in ready[:free]}
                todo = [job for job in todo if job not in ready[:free]]
                progress.show(list(running.values()))
                stop.raise_if_received()
                for future in workers.wait(list(running)):
                    job = running.pop(future)
                    try:
                        results[job.name], begin, end = _result(future, job, folder)
                    except ValueError as error:
                        failures.append(error)
                        todo = _without_waiting_for(job, todo)
                        progress.failed(job, error)
                        continue
                    _keep(folder, job, results[job.name], Made(code, begin, end))
                    progress.finished(job, end - begin)
                    if finished is not None:
                        finished(results)
                stop.raise_if_received()
        except BaseException:
            workers.stop()
            raise
    if failures:
        more = f" ({len(failures) - 1} more failed)" if len(failures) > 1 else ""
        raise ValueError(f"{failures[0]}{more}") from failures[0]
    return results


def _keep(folder: Path, job: Job, result: Any, made: Made) -> None:
    write_json(folder / f"{job.name}.json", job.identity | {"made": made.as_json(), "result": result})


def _without_waiting_for(failed: Job, jobs: Sequence[Job]) -> list[Job]:
    """Keep those of ``jobs`` that need neither the failed one nor one that does."""
    lost, left = {failed.name}, list(jobs)
    while waiting := [job for job in left if lost & set(job.after)]:
        lost |= {job.name for job in waiting}
        left = [job for job in left if job not in waiting]
    return left


def _kept(folder: Path, job: Job) -> dict[str, Any] | None:
    path = folder / f"{job.name}.json"
    if not path.exists():
        return None
    kept = read_json(path, dict, "delete it, and this stage is worked again", RESULTS_BYTES)
    is_same = {key: kept.get(key) for key in job.identity} == job.identity
    return kept if is_same and "result" in kept else None


def _result(future: Any, job: Job, folder: Path) -> tuple[Any, float, float]:
    try:
        return future.result()
    except BrokenExecutor as error:  # no other job would have a worker
        raise ChildProcessError(
            f"a worker ended during stage {job.name}, for want of memory perhaps: {error}"
        ) from error
    except Exception as error:
        raise ValueError(f"stage {job.name} failed: {error}; its output is in {folder / job.name}.log") from error


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
            if "SUBMITIT_EXECUTOR" in os.environ:  # the job goes back into its queue
                raise
            raise RuntimeError(f"stopped by signal {stopped.number}") from None  # a pool does not forward SystemExit
