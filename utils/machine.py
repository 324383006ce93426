"""This machine: its processors, and its room in memory and on disks."""

from __future__ import annotations

import errno
import math
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import psutil


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_processes() -> int:
    """The most processes or threads that it can make sense to ask for: 64, or four per core of a larger machine."""
    return max(64, 4 * (os.cpu_count() or 1))


def cpu_info() -> str:
    """What the kernel says of the processors; empty where it does not."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def available_memory() -> int:
    """Bytes that new programs can have without swapping."""
    return int(psutil.virtual_memory().available)


def total_memory() -> int:
    """Bytes of memory that this machine has."""
    return int(psutil.virtual_memory().total)


def peak_memory() -> int:
    """The most bytes of memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def check_fits(bytes_each: int, **sizes: int) -> None:
    """Refuse what this machine's memory could not hold, even if it held nothing else.

    Args:
        bytes_each: Of one element.
        sizes: How many elements there are, as factors, by the settings that give them.

    Raises:
        ValueError: Naming the settings.
    """
    needed = bytes_each * math.prod(sizes.values())
    if needed > total_memory():
        values = ", ".join(f"{key}={value}" for key, value in sizes.items())
        raise ValueError(
            f"{values}: that takes {as_size(needed)} of memory at least, and this machine has "
            f"{as_size(total_memory())}; lower one of them"
        )


def existing_parent(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def free_bytes(folder: Path) -> int:
    """Room on the disk where ``folder`` is, or would be."""
    return shutil.disk_usage(existing_parent(folder)).free


def check_writable(key: str, folder: Path) -> None:
    """Refuse a folder that cannot be made or written into, by making and removing one there or where it would be.

    Raises:
        ValueError: Naming the setting ``key``.
    """
    try:
        parent = existing_parent(folder)
        if not parent.is_dir():
            raise ValueError(f"{key}={folder} cannot be made: {parent} is a file; name another folder")
        for name in folder.expanduser().absolute().relative_to(parent).parts:
            if len(os.fsencode(name)) > os.pathconf(parent, "PC_NAME_MAX"):
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        # permissions do not tell: root has all of them, and not even it can write to /proc or a read-only disk
        Path(tempfile.mkdtemp(prefix=".writable_", dir=parent)).rmdir()
    except OSError as error:
        raise ValueError(f"{key}={folder} cannot be written: {error.strerror}; name another folder") from None


def folder_bytes(folder: Path) -> int:
    """Sizes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def as_size(size: float) -> str:
    """Bytes for people: "3.1 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def as_duration(seconds: float) -> str:
    """Seconds for people: "3.2 hours"."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.3g} s"
