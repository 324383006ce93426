"""Two processes on the CPU that know each other, as ``torchrun`` would have started them; they run what tests ask."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from tests.forked import CONTEXT

PATIENCE = 120.0  # seconds
NAMES = [f"together {rank}" for rank in range(2)]


class Processes:
    """``count`` processes that are joined for good.

    What they run must be importable and picklable. After an error they are ended, and started anew at the next call.
    """

    def __init__(self, count: int = 2) -> None:
        self.count = count
        self._pipes: list[Connection] = []
        self._running: list[Any] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """``function(*arguments)`` in every process; what each returns, in the order of ranks.

        Raises:
            AssertionError: With the traceback of the first process that failed, or if they take too long.
        """
        if not all(process.is_alive() for process in self._running):  # another test may end what it finds running
            self.close()
        if not self._running:
            self._start()
        for pipe in self._pipes:
            pipe.send((function, arguments))
        results: dict[int, Any] = {}
        while len(results) < self.count:
            waiting = [pipe for rank, pipe in enumerate(self._pipes) if rank not in results]
            ready = wait(waiting, timeout=PATIENCE)
            failure = "" if ready else f"nothing from {len(waiting)} processes in {PATIENCE} s"
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = self._pipes.index(pipe)
                results[rank], failed = pipe.recv()
                failure = failure or (results[rank] if failed else "")
            if failure:
                self.close()
                raise AssertionError(failure)
        return [results[rank] for rank in range(self.count)]

    def _start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank in range(self.count):
            ours, theirs = CONTEXT.Pipe()
            arguments = (theirs, rank, self.count, port)
            process = CONTEXT.Process(target=_serve, name=NAMES[rank], args=arguments, daemon=True)
            process.start()
            self._running.append(process)
            self._pipes.append(ours)

    def close(self) -> None:
        """End them."""
        for process in self._running:
            process.kill()
            process.join()
        self._running.clear()
        self._pipes.clear()


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What ``torchrun`` tells a process."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    return {name: str(value) for name, value in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}


def _serve(pipe: Connection, rank: int, count: int, port: int) -> None:
    os.environ.update(environment(rank, count, port))
    import torch

    from utils import distributed

    torch.set_num_threads(1)
    distributed.join()
    while True:
        function, arguments = pipe.recv()
        try:
            pipe.send((function(*arguments), False))
        except BaseException:
            pipe.send((f"process {rank}: {traceback.format_exc()}", True))
