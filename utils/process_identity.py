"""Which process did something, in a form that another one, perhaps on another machine, can check later."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Host, number, birth and directory of this process, and its SLURM job if it has one."""
    process: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "birth": birth(os.getpid())}
    process["directory"] = str(Path.cwd())
    if job := os.environ.get("SLURM_JOB_ID"):
        process["slurm_job"] = job
    return process


def is_here(process: Mapping[str, Any]) -> bool:
    """Whether a process ran on this machine."""
    return process["host"] == socket.gethostname()


def runs_here(process: Mapping[str, Any]) -> bool:
    """Whether a process of this machine still runs."""
    return is_here(process) and birth(process["pid"]) == process["birth"] is not None


def birth(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: numbers of processes are used again. None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else fields[19]  # a zombie has ended
