"""Work spread over processes that nobody has to clean up after."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from utils.child_processes import end_with_parent

Work = Callable[[int], Iterator[int]]
"""Does the item with this number; yields how many units of work are newly done, now and then."""


class WorkerError(RuntimeError):
    """A worker process failed; the message is its error's, or holds its traceback or its exit code."""


def run_in_processes(work: Work, items: Sequence[int], num_workers: int) -> Generator[int, None, None]:
    """Do all items, each in one of ``num_workers`` processes with one thread each; yields progress as it comes.

    Workers are fresh processes (``work`` is pickled), end when this process dies in any way, and are stopped when the
    iteration is left early. One worker means this process itself.

    Raises:
        WorkerError: If a worker failed or was killed.
    """
    if num_workers == 1:
        with _one_thread():
            for item in items:
                yield from work(item)
        return
    # Not fork: a forked copy of a process whose torch threads have run may hang, and siblings would share pipe ends.
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, SpawnProcess] = {}
    try:
        for _ in range(num_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, work, os.getpid()), daemon=True)
            process.start()
            theirs.close()  # so that reading ours ends when the worker dies
            workers[ours] = process
        yield from _distribute(workers, list(items))
    finally:
        for process in workers.values():
            process.terminate()
        for connection, process in workers.items():
            process.join()
            connection.close()


def _distribute(workers: dict[Connection, SpawnProcess], items: list[int]) -> Iterator[int]:
    waiting = iter(items)
    busy = set()
    for connection, item in zip(workers, waiting, strict=False):
        connection.send(item)
        busy.add(connection)
    while busy:
        for ready in wait(list(busy)):
            assert isinstance(ready, Connection)
            connection = ready
            try:
                message = connection.recv()
            except EOFError:
                workers[connection].join()
                code = workers[connection].exitcode
                raise WorkerError(
                    f"a worker process ended with exit code {code} in the middle of its work"
                    + (" (killed; too little memory for so many workers?)" if code == -signal.SIGKILL else "")
                ) from None
            if isinstance(message, str):
                raise WorkerError(message)
            if message is not None:
                yield message
                continue
            busy.remove(connection)
            for item in itertools.islice(waiting, 1):
                connection.send(item)
                busy.add(connection)


def _serve(connection: Connection, work: Work, parent: int) -> None:
    """Loop of a worker: receive an item, send progress (numbers), then None; a string reports a failure."""
    end_with_parent(parent)  # in the middle of an item too: another process may go on in its place
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us in its own time
    torch.set_num_threads(1)
    try:
        while True:
            for done in work(connection.recv()):
                connection.send(done)
            connection.send(None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
    except (ValueError, OSError) as error:  # of the user's making: one line says it all
        connection.send(f"{error}")
    except Exception:  # whatever it was, it is reported where the user looks
        connection.send(traceback.format_exc())


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
