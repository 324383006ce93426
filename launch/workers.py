"""Where the jobs of a study run: processes of this machine, each with a GPU of its own, or jobs of a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from launch.conf import ROOT
from launch.gpus import one_gpu
from utils import slurm
from utils.child_processes import end_with_parent
from utils.folder_lock import Shares, keep

GRACE_SECONDS = 30.0  # for a worker to finish its step and save
POLL_SECONDS = 5.0  # between looks at a cluster's jobs
LAUNCHERS = {"SlurmLauncher": "slurm", "LocalLauncher": "local"}
"""Classes of Hydra's submitit launchers, and what submitit calls where they run."""
NOT_SUBMITITS = ("_target_", "submitit_folder", "max_num_timeout")
"""Settings of a launcher that are not among those of its jobs."""


class LocalWorkers(contextlib.AbstractContextManager["LocalWorkers"]):
    """Processes of this machine.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")  # not fork: torch's thread pools do not survive it
        self._pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(Shares(), os.getpid()))

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Let a free process call ``work``; return its future."""
        return self._pool.submit(work, *arguments)

    def wait(self, futures: Sequence[Any]) -> list[Any]:
        """Wait a second at most; returns the futures that are done."""
        return list(wait(futures, timeout=1.0, return_when=FIRST_COMPLETED).done)

    def stop(self) -> None:
        """End the processes, once they have saved."""
        for worker in multiprocessing.active_children():
            worker.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True)


def _begin(shares: object, parent: int) -> None:
    """Give a worker its GPU; let one of a parent that was killed save and end, its folder in use until then."""
    keep(shares)
    end_with_parent(parent, GRACE_SECONDS)
    gpu = one_gpu("auto")
    os.environ |= gpu.__enter__()  # before torch looks for one; never given back: it is the process's
    _GPUS.append(gpu)


_GPUS: list[Any] = []  # would be given back if nothing referred to it


class ClusterWorkers(contextlib.AbstractContextManager["ClusterWorkers"]):
    """Jobs of a cluster, by submitit.

    Args:
        launcher: Settings of Hydra's submitit launcher, as ``conf/cluster`` sets them.
        folder: For submitit's own files.

    Raises:
        ValueError: If the settings are those of another launcher.
    """

    def __init__(self, launcher: Mapping[str, Any], folder: Path) -> None:
        import submitit
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        kind = LAUNCHERS.get(str(launcher.get("_target_", "")).rpartition(".")[2])
        if kind is None:
            raise ValueError("hydra/launcher: a study's stages run here, or with a submitit launcher, see conf/cluster")
        # its jobs import our functions, wherever they are started
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        settings = {key: value for key, value in launcher.items() if key not in NOT_SUBMITITS and value is not None}
        shared = {item.name for item in dataclasses.fields(BaseQueueConf)}
        self._executor = submitit.AutoExecutor(folder / "submitit", cluster=kind)
        self._executor.update_parameters(
            **{key if key in shared else f"{kind}_{key}": value for key, value in settings.items()}
        )
        self._jobs: list[Any] = []

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Queue a job that calls ``work``."""
        job = self._executor.submit(Requeued(work), *arguments)
        self._jobs.append(job)
        return job

    def wait(self, futures: Sequence[Any]) -> list[Any]:
        """Return the jobs that are done, or wait a moment if none is."""
        done = [job for job in futures if job.done()]
        if not done:
            time.sleep(POLL_SECONDS)
        return done

    def stop(self) -> None:
        """Cancel what is not done; it saves, and goes on when the study is run again."""
        for job in self._jobs:
            if not job.done():
                job.cancel()

    def __exit__(self, *exception: object) -> None:
        return None


class Requeued:
    """A function whose job goes back into the queue when its time is over; a stage goes on from what it has saved."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work = work

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        with slurm.requeued_when_stopped():
            return self.work(*arguments)

    def checkpoint(self, *arguments: Any) -> Any:
        """Say to submitit what is to be queued in its place, where nothing has begun that could save."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)
