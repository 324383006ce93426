"""Processes that play episodes for their parent, and never outlive it or hang it."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.episode_player import Copies, CopyTask, EpisodePlayer, Failure, Options, Task
from envs.shared_arrays import Shapes, SharedBuffer
from envs.simulator_worker import PARENT_DECIDES

REPOSITORY = Path(__file__).resolve().parent.parent
SECONDS_TO_CLOSE = 0.5
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)


@dataclass(frozen=True)
class Worker:
    """A process and our end of the connection to it."""

    process: subprocess.Popen[bytes]
    connection: Connection


class WorkerPool:
    """Does tasks in processes that are started when first needed.

    The processes are neither forked nor spawned by ``multiprocessing``: a fork of a process with torch threads may
    hang, and a spawned one imports the main script once more, torch and all: 6 s and 700 MB each for ``plan.py``.

    A copy of a pool has processes of its own, which go on with copies of the episodes.
    """

    def __init__(
        self,
        num_workers: int,
        location: str,
        image_size: int,
        copies: Mapping[int, Copies] | None = None,
        options: Options | None = None,
    ) -> None:
        """Plan processes; starts none.

        Args:
            num_workers: Their number, >= 1.
            location: Of the simulator, ``module:Class``.
            image_size: Pixels.
            copies: Episodes that the processes go on with, by the process's index.
            options: Further arguments of the simulator.
        """
        self.num_workers = num_workers
        self._location = location
        self._image_size = image_size
        self._options = options or {}
        self._buffer: SharedBuffer | None = None
        self._workers: dict[int, Worker] = {}
        self._copies = dict(copies or {})  # of workers that are still to be started
        # also runs when the interpreter exits
        self._stop = weakref.finalize(self, _stop, self._workers, os.getpid(), SECONDS_TO_CLOSE)

    def arrays(self, shapes: Shapes) -> dict[str, NDArray[Any]]:
        """Memory for the arrays of the next tasks, seen by all workers."""
        self._buffer = self._buffer or SharedBuffer()
        return self._buffer.arrays(shapes)

    def run(self, shapes: Shapes, tasks: Sequence[Task]) -> Failure | None:
        """Do one task per worker, on arrays of these ``shapes``; a worker without rows is left alone.

        Returns:
            None, or what failed in the first row that did. After a failure that is no refusal all workers have ended;
            the next tasks get new ones. The same if the call is interrupted.
        """
        try:
            failure = self._run(shapes, {index: task for index, task in enumerate(tasks) if task.rows})
        except BaseException:
            # Ctrl-C, for one: an answer still to come would be taken for that to the next task
            self._end_now()
            raise
        if failure and not failure.is_refusal:
            self._end_now()
        return failure

    def __reduce__(self) -> tuple[Any, ...]:
        copies = self._copies | {index: self._copies_of(worker) for index, worker in self._workers.items()}
        return type(self), (self.num_workers, self._location, self._image_size, copies, self._options)

    def _copies_of(self, worker: Worker) -> Copies:
        """Ask a worker for its episodes.

        Raises:
            RuntimeError: If a simulator cannot be copied, or the process has ended.
        """
        try:
            worker.connection.send_bytes(pickle.dumps(({}, CopyTask(), {})))
            answer: Copies | Failure = _answer(worker, [])
        except BaseException:  # Ctrl-C, for one; see ``run``
            self._end_now()
            raise
        if isinstance(answer, Failure):
            raise RuntimeError(f"the episodes of {self._location} cannot be copied: {answer.message}")
        return answer

    def close(self) -> None:
        """End all processes and give the memory back; they get a moment to release what they hold."""
        self._copies.clear()
        _stop(self._workers, os.getpid(), SECONDS_TO_CLOSE)
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None

    def _end_now(self) -> None:
        self._copies.clear()
        _stop(self._workers, os.getpid(), 0)

    def _run(self, shapes: Shapes, tasks: dict[int, Task]) -> Failure | None:
        for index in tasks:
            if index not in self._workers:
                self._workers[index] = self._start()
        waiting: dict[Connection, int] = {}
        for index, task in tasks.items():
            worker = self._workers[index]
            try:
                worker.connection.send_bytes(pickle.dumps((shapes, task, self._copies.pop(index, {}))))
            except ConnectionError:
                return _death(worker, task.rows)
            waiting[worker.connection] = index
        refusals = []
        while waiting:
            for ready in wait(list(waiting)):
                assert isinstance(ready, Connection)
                index = waiting.pop(ready)
                failure: Failure | None = _answer(self._workers[index], tasks[index].rows)
                if failure and not failure.is_refusal:
                    return failure
                refusals += [failure] if failure else []
        return min(refusals, key=lambda refusal: refusal.rows[0], default=None)

    def _start(self) -> Worker:
        self._buffer = self._buffer or SharedBuffer()
        ours, theirs = multiprocessing.Pipe()
        descriptors = (theirs.fileno(), self._buffer.descriptor)
        arguments = [*descriptors, os.getpid(), self._location, self._image_size, json.dumps(self._options)]
        # where this process finds modules, for the worker to find the same ones wherever it is started
        places = os.pathsep.join([str(REPOSITORY), *(str(Path(entry).resolve()) for entry in sys.path)])
        with theirs, _blocked(PARENT_DECIDES):  # theirs is closed, so that reading ours ends when the worker dies
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "envs.simulator_worker", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                env=os.environ | ONE_THREAD | {"PYTHONPATH": places},
                pass_fds=descriptors,
            )
        return Worker(process, ours)


class OwnProcess:
    """Does the tasks of one worker in this process; the same interface as ``WorkerPool``."""

    num_workers = 1

    def __init__(self, location: str, image_size: int, options: Options | None = None) -> None:
        """Play the simulator ``module:Class``."""
        self._player = EpisodePlayer(location, image_size, options)
        self._arrays: dict[str, NDArray[Any]] = {}

    def arrays(self, shapes: Shapes) -> dict[str, NDArray[Any]]:
        """Memory for the arrays of the next task."""
        self._arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}
        return self._arrays

    def run(self, shapes: Shapes, tasks: Sequence[Task]) -> Failure | None:
        """Do the one task; simulators that failed or were interrupted are not used again."""
        try:
            failure = self._player.run(tasks[0], self._arrays)
        except BaseException:
            self._player.close()
            raise
        if failure and not failure.is_refusal:
            self._player.close()
        return failure

    def close(self) -> None:
        """Release the simulators and the memory."""
        self._player.close()
        self._arrays = {}


def _answer(worker: Worker, rows: Sequence[int]) -> Any:
    """Wait for what a worker says to its task on ``rows``; a ``Failure`` if it has ended."""
    try:
        return pickle.loads(worker.connection.recv_bytes())
    except (EOFError, ConnectionError):
        return _death(worker, rows)


def _death(worker: Worker, rows: Sequence[int]) -> Failure:
    """Describe the end of a worker whose connection broke off."""
    code = worker.process.wait()
    if code == -signal.SIGKILL:
        how = "was killed (signal SIGKILL), most likely because memory ran out: use fewer workers or episodes"
    elif code < 0:
        how = f"crashed (signal {signal.Signals(-code).name}); too little memory may be the reason"
    else:
        how = f"ended with exit code {code}; too little memory may be the reason"
    return Failure(rows, f"worker process {worker.process.pid} {how}")


def _stop(workers: dict[int, Worker], owner: int, seconds: float) -> None:
    """End processes: a closed connection asks for it, after ``seconds`` they are killed."""
    if os.getpid() != owner:
        return  # a forked copy of the process that they belong to
    for worker in workers.values():
        worker.connection.close()
    deadline = time.monotonic() + seconds
    for index in list(workers):
        process = workers[index].process
        try:
            process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        del workers[index]


@contextmanager
def _blocked(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Hold signals back; a process started meanwhile does so from its first instruction."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
