"""Processes that do one piece of work together, one per GPU or per share of the CPU, whatever the work.

``torchrun`` and ``accelerate launch`` say in the environment who takes part. Without them, or with one process, every
function here does nothing, at once. What is said between processes (numbers, small objects) goes over gloo, whatever
the device; tensors see ``training/gradients.py``.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from utils.machine import available_cores
from utils.printable import exit_with, printable

WAIT = datetime.timedelta(days=7)
"""How long one process waits for another at most. One that died is noticed at once: its connections close."""

JOIN_WAIT = datetime.timedelta(minutes=10)
WORDS = "last words"
SILENCE = 1.0  # seconds that a process with nothing to say waits before it ends, so that another can speak first

_store: dist.Store | None = None


class PeerLostError(RuntimeError):
    """Another process of this run has ended; the message is what it said, if it said anything."""


@dataclass(frozen=True)
class Share:
    """The rows, of ``total``, that belong to this process: ``count`` of them, from number ``first`` on."""

    first: int
    count: int
    total: int

    @property
    def rows(self) -> slice:
        """This share's rows of something that has all of them."""
        return slice(self.first, self.first + self.count)

    @property
    def fraction(self) -> float:
        """What the mean over these rows contributes to the mean over all."""
        return self.count / self.total


def join() -> None:
    """Take part in the group that the environment describes, if it describes one of several processes.

    Raises:
        ValueError: If the description is not complete.
    """
    global _store
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return
    if missing := [name for name in names if name not in os.environ]:
        raise ValueError(f"WORLD_SIZE is set but not {', '.join(missing)}: start several processes with torchrun")
    _store, rank, world = next(dist.rendezvous("env://", timeout=JOIN_WAIT))
    dist.init_process_group("gloo", store=dist.PrefixStore("group", _store), rank=rank, world_size=world, timeout=WAIT)


def leave() -> None:
    """Take leave in good order; after an error a process just ends."""
    global _store
    if dist.is_initialized():
        barrier()
        dist.destroy_process_group()
        _store = None


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", rank())) if size() > 1 else 0


def own_cores() -> int:
    """Cores for this process and those it starts: its part of what the processes of ``torchrun`` share here, >= 1."""
    return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def is_main() -> bool:
    """Whether this is the process that writes: logs, checkpoints, pictures."""
    return rank() == 0


def require_alone(what: str) -> None:
    """Refuse ``what`` where several processes work together.

    Raises:
        ValueError: If there are several.
    """
    if size() > 1:
        raise ValueError(f"{what} looks at one process: start it without torchrun, accelerate or srun")


def share(total: int) -> Share:
    """Return this process's part of ``total`` rows: consecutive ones, as evenly as possible."""
    first, end = (total * number // size() for number in (rank(), rank() + 1))
    return Share(first, end - first, total)


def share_of_batch(present: int, total: int | None) -> Share:
    """Say where this process's ``present`` samples lie in the batch of all, which has ``total`` (None: just these)."""
    return Share(0, present, present) if total is None or size() == 1 else share(total)


def barrier() -> None:
    """Wait until all processes are here."""
    if size() > 1:
        with talking():
            dist.barrier()


def broadcast(value: Any = None) -> Any:
    """Return what the main process gives, a small picklable object; the others' arguments are ignored."""
    if size() == 1:
        return value
    box = [value]
    with talking():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any) -> list[Any]:
    """Return what each process gives, small picklable objects, in the order of ranks, to all of them."""
    if size() == 1:
        return [value]
    boxes: list[Any] = [None] * size()
    with talking():
        dist.all_gather_object(boxes, value)
    return boxes


def add_up(values: Mapping[Any, float]) -> dict[Any, float]:
    """Sum each value over processes, in double precision; all must give the same names in the same order."""
    total = _reduced(torch.tensor(list(values.values()), dtype=torch.float64), dist.ReduceOp.SUM)
    return dict(zip(values, total.tolist(), strict=True))


def any_of(flags: Sequence[bool]) -> list[bool]:
    """Tell of each flag whether it is set in any process; all give as many."""
    return [bool(flag) for flag in _reduced(torch.tensor(flags, dtype=torch.uint8), dist.ReduceOp.MAX).tolist()]


def largest(number: int) -> int:
    """Return the largest of the numbers that the processes give."""
    return int(_reduced(torch.tensor(number), dist.ReduceOp.MAX))


def _reduced(numbers: torch.Tensor, operation: Any) -> torch.Tensor:
    if size() > 1:
        with talking():
            dist.all_reduce(numbers, operation)
    return numbers


@contextlib.contextmanager
def talking() -> Iterator[None]:
    """Tell the end of another process from errors of our own."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:  # gloo and NCCL have no type of their own for it
        raise PeerLostError(_last_words()) from error


def _last_words() -> str:
    """Return what the first process to end said."""
    with contextlib.suppress(RuntimeError, ValueError):  # the store lives in a process that is gone
        if _store is not None and _store.check([WORDS]):
            return _store.get(WORDS).decode()
    return "another process of this run has ended without saying why"


def first_to_end() -> bool:
    """Whether no other process has asked this before: it is the one that says why all end."""
    if _store is None:
        return True
    try:
        return _store.add("ending", 1) == 1
    except (RuntimeError, ValueError):  # the store lives in a process that is gone
        return True


def fail(message: str) -> NoReturn:
    """End this process with one line, and all others through the launcher; only the first to fail speaks.

    Raises:
        SystemExit: Always.
    """
    if size() == 1:
        exit_with(f"error: {message}")
    if first_to_end():
        said = f"{message} (process {rank()} of {size()})"
        start = "\n" if rank() else ""  # there, the bar of the main one has not ended its line
        sys.stderr.write(f"{start}error: {printable(said)}\n")
        if _store is not None:
            with contextlib.suppress(RuntimeError, ValueError):
                _store.set(WORDS, said)  # for the record that the main process keeps
        sys.stderr.flush()  # the launcher will not wait for us once another process has ended
    else:
        time.sleep(SILENCE)
    sys.exit(1)
