"""Identity of a process, in a form that another one, perhaps on another machine, can check later."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Describe this process: host, number, birth, directory, and its SLURM job if it has one."""
    number, job = os.getpid(), os.environ.get("SLURM_JOB_ID")
    about = {"host": socket.gethostname(), "pid": number, "birth": birth(number), "directory": str(Path.cwd())}
    return about | ({"slurm_job": job} if job else {})


def is_here(process: Mapping[str, Any]) -> bool:
    """Whether a process ran on this machine."""
    return process["host"] == socket.gethostname()


def runs_here(process: Mapping[str, Any]) -> bool:
    """Whether a process of this machine still runs."""
    return is_here(process) and birth(process["pid"]) == process["birth"] is not None


def birth(pid: int) -> str | None:
    """Say when a process began, in the kernel's ticks, as numbers are used again; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else fields[19]  # a zombie has ended
