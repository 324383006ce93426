"""How an entry runs: alone, or as one of several processes that torchrun, accelerate or srun started."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launch import startup
from launch.command_line import one_line, protect_record
from launch.entry import run_entry
from launch.grammar import is_sweep
from launch.sweep_names import name_sweep
from utils import distributed

log = logging.getLogger(__name__)

_announced = False


def start(main: Callable[[], Any], work: Callable[..., Any], state: str, sweeps: str) -> None:
    """Run an entry to its end.

    Only the main process reads the command line and has a log; the others are told the composed config.

    Args:
        main: Decorated by Hydra; it calls ``together(work, ...)``.
        work: What every process does.
        state: File of a run folder that holds what can be resumed.
        sweeps: Folder of sweeps that name none.

    Raises:
        SystemExit: After an error, with one line for all processes.
        StopRequested: After a signal, once everything is saved.
    """
    _complete_accelerate()
    with one_line():
        distributed.join()
        if any(command != sys.argv[1:] for command in distributed.gather(sys.argv[1:])):
            raise ValueError("the processes of one run were started with different arguments; start each run by itself")
    if distributed.is_main():
        with _others_released():
            with one_line():
                arguments = protect_record(sys.argv[1:], state)
                if distributed.size() > 1 and is_sweep(arguments):
                    raise ValueError("a sweep (-m) starts its runs itself: start several processes for one run instead")
            sys.argv[1:] = name_sweep(arguments, sweeps)
            run_entry(main, sys.argv[1:])
    else:
        run_entry(functools.partial(_follow, work), [])
    if _announced:
        distributed.leave()


def together(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``work`` in all processes with the main one's arguments; returns what it returns here."""
    global _announced
    _announced = True
    distributed.broadcast(arguments)
    try:
        return work(*arguments)
    except distributed.PeerLostError:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher ends all now; the record is to say why
        raise


@contextlib.contextmanager
def _others_released() -> Iterator[None]:
    """Let the other processes go if there was nothing to do (--help), or a mistake in the command line."""
    try:
        yield
    finally:
        if not _announced:
            with contextlib.suppress(distributed.PeerLostError):
                distributed.broadcast(None)


def _complete_accelerate() -> None:
    """Become the processes that ``accelerate launch --cpu --num_processes n`` promises: without MPI it starts only one.

    It does not tell that one the number, which only its own command line says.
    """
    if os.environ.get("ACCELERATE_USE_CPU") != "True" or "MASTER_PORT" not in os.environ or "WORLD_SIZE" in os.environ:
        return  # the port is there if several processes were asked for
    try:
        asked = Path(f"/proc/{os.getppid()}/cmdline").read_text().replace("\0", " ")
    except OSError:
        asked = ""
    count = re.search(r" --num[_-]processes[ =](\d+) ", asked)
    if count is None:
        log.warning("accelerate launch --cpu has started one process; for several use torchrun --nproc_per_node=...")
        return
    local = ("--nproc_per_node", count[1], "--master_addr", "127.0.0.1", "--master_port", os.environ["MASTER_PORT"])
    os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *local, *sys.argv])


def _follow(work: Callable[..., Any]) -> None:
    """What a process does that is not the main one."""
    startup.raise_on_interrupt()
    logging.basicConfig(level=logging.ERROR, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    try:
        arguments = distributed.broadcast()
    except distributed.PeerLostError:
        sys.exit(1)  # the main process did not get beyond its command line, and has said why
    if arguments is None:
        return
    global _announced
    _announced = True
    with one_line():
        work(*arguments)
