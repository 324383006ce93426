"""One folder, one run: a lock on the folders that we write into, which ends with the process however that ends.

It is the kernel's (``flock``), on a file in the folder that says who holds it. Processes that were given
``Shares`` keep it when the one that took it is killed; those that only read or compute for it are forked without it, or
close it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import psutil

from utils.links import LinkError, guard, unguard
from utils.lock_holder import holder, perhaps_running, sign

log = logging.getLogger(__name__)

LOCK = ".world-models.lock"
ONLY_HERE = {"nolock", "local_lock=all", "local_lock=flock", "localflock"}
"""Options of mounts on which a lock is not seen by other machines."""


class FolderInUseError(ValueError):
    """Another process writes into the folder; the message names it."""


@dataclass
class _Held:
    """A lock of this process.

    Attributes:
        handle: Of the lock's file.
        folder: As it was named.
        made: Folders that were made for it, the innermost first.
        seen_elsewhere: Whether other machines see the lock.
        thread: The one that took it.
    """

    handle: int
    folder: Path
    made: list[Path] = field(default_factory=list)
    seen_elsewhere: bool = True
    thread: int = field(default_factory=threading.get_ident)


_held: dict[Path, _Held] = {}
_shared: list[int] = []  # handles of locks that the parent has taken
_warned: set[Path] = set()


@contextlib.contextmanager
def holding(
    folder: Path, what: str = "run folder", remedy: str = "choose another hydra.run.dir", wait: bool = False
) -> Iterator[None]:
    """Hold ``folder`` for the block, see ``hold``, unless this process holds it already."""
    is_new = hold(folder, what, remedy, wait)
    try:
        yield
    finally:
        if is_new:
            release(folder)


def hold(
    folder: Path, what: str = "run folder", remedy: str = "choose another hydra.run.dir", wait: bool = False
) -> bool:
    """Take the lock of ``folder``, which is made if it does not exist; return False if this process has it already.

    Below it, nothing is written through links from then on.

    Args:
        folder: Folder to be written into.
        what: Name of such a folder, for the error.
        remedy: What to do instead of waiting, for the error.
        wait: Wait until it is free, instead of refusing; threads wait for each other, too.

    Raises:
        FolderInUseError: If another process holds it.
        OSError: If the folder cannot be written.
    """
    place = _place(folder)
    held = _held.get(place)
    if held is not None and not (wait and held.thread != threading.get_ident()):
        return False
    made = _make(folder)
    try:
        handle, seen_elsewhere = _locked(folder, what, remedy, wait)
    except BaseException:
        _remove_empty(made)
        raise
    with contextlib.suppress(OSError):  # on a full disk the lock is one all the same
        sign(handle)
    _held[place] = _Held(handle, folder, made, seen_elsewhere)
    guard(folder)
    return True


def release(folder: Path) -> None:
    """Give the lock of ``folder`` back; what was made for it and is empty goes too."""
    held = _held.pop(_place(folder), None)
    if held is None:
        return
    unguard(held.folder)
    with contextlib.suppress(OSError):  # the disk is gone
        (held.folder / LOCK).unlink(missing_ok=True)  # while it is held: see _locked
    os.close(held.handle)
    _remove_empty(held.made)


def was_made(folder: Path) -> bool:
    """Whether the folder, which this process holds, was made for that."""
    held = _held.get(_place(folder))
    return held is not None and bool(held.made)


def is_seen_elsewhere(folder: Path) -> bool:
    """Whether other machines see the lock that this process has on ``folder``."""
    return _held[_place(folder)].seen_elsewhere


class Shares:
    """Shares in all locks of this process, for the arguments of a process that ``multiprocessing`` spawns."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _keep, tuple(DupFd(held.handle) for held in _held.values())


def keep(shares: object) -> None:
    """Do nothing: a spawned process that has received ``Shares`` has them until it ends."""


def _keep(*duplicates: Any) -> None:
    _shared.extend(duplicate.detach() for duplicate in duplicates)
    for handle in _shared:
        os.set_inheritable(handle, False)


def _place(folder: Path) -> Path:
    """Resolve a folder; ``Path.resolve`` has an error of its own for links that lead in a circle."""
    return Path(os.path.realpath(folder))


def _after_fork() -> None:
    """Let go of the parent's locks in a forked process (a reader of samples), which may outlive it."""
    for handle in (*(held.handle for held in _held.values()), *_shared):
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()
    _shared.clear()


os.register_at_fork(after_in_child=_after_fork)


def _locked(folder: Path, what: str, remedy: str, wait: bool) -> tuple[int, bool]:
    """Take a lock; return its open file, and whether other machines see it."""
    path, said = folder / LOCK, False

    def refusal(who: str) -> FolderInUseError:
        return FolderInUseError(f"{what} {folder} is in use by {who}: wait for it to end, or {remedy}")

    while True:
        handle, is_seen = _open(path), True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if said else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            if not wait:
                raise refusal(holder(path)) from None
            log.info("%s %s is in use by %s; waiting for it", what, folder, holder(path))
            said = True
            continue
        except OSError as error:
            is_seen = False
            if folder not in _warned:
                _warned.add(folder)
                log.warning("%s: its file system has no locks (%s); start nothing else in it", folder, error.strerror)
        else:
            if not _is_still(path, handle):  # the one who had it has removed it since
                os.close(handle)
                continue
            is_seen = not ONLY_HERE.intersection(_mount_options(folder))
        if not is_seen and (who := perhaps_running(path)):
            os.close(handle)
            raise refusal(who)
        return handle, is_seen


def _open(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise LinkError(f"{path} is a link, and nothing is written through links: remove it") from error
        raise OSError(error.errno, error.strerror, str(path.parent)) from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(handle)
        raise LinkError(f"{path} is not a file of its own: remove it")
    return handle


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _mount_options(folder: Path) -> set[str]:
    """Say how the file system of a folder is mounted."""
    above = [disk for disk in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(disk.mountpoint)]
    return set(max(above, key=lambda disk: len(disk.mountpoint)).opts.split(",")) if above else set()


def _make(folder: Path) -> list[Path]:
    """Make a folder; return those that were not there, the innermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):  # the first that is not empty
        for folder in folders:
            folder.rmdir()
