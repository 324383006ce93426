"""This machine: its processors, and its room in memory and on disks."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path

import psutil


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_info() -> str:
    """What the kernel says of the processors; empty where it does not."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def available_memory() -> int:
    """Bytes that new programs can have without swapping."""
    return int(psutil.virtual_memory().available)


def peak_memory() -> int:
    """The most bytes of memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def existing_parent(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def free_bytes(folder: Path) -> int:
    """Room on the disk where ``folder`` is, or would be."""
    return shutil.disk_usage(existing_parent(folder)).free


def check_writable(key: str, folder: Path) -> None:
    """Refuse a folder that cannot be made or written into.

    Raises:
        ValueError: Naming the setting ``key``.
    """
    parent = existing_parent(folder)
    if not parent.is_dir():
        raise ValueError(f"{key}={folder} cannot be made: {parent} is a file; name another folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"{key}={folder} cannot be written: no permission in {parent}; name another folder")


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
