"""Who holds a lock, by what its file says and by which processes have it open."""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from utils.process_identity import is_here, runs_here, this_process
from utils.reading.json_file import read_json


def sign(handle: int) -> None:
    """Write into an open lock file that this process holds it."""
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps({**this_process(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}).encode())


def perhaps_running(path: Path) -> str | None:
    """Name the process that holds a lock by what its file says, unless that has ended: not everyone sees the lock."""
    said = _read(path)
    if said is None or (is_here(said) and (not runs_here(said) or said["pid"] == os.getpid())):
        return None
    return _named(said) + ("" if is_here(said) else f" (if that is gone, delete {path})")


def holder(path: Path) -> str:
    """Name the process that took the lock, or those that have a share in it."""
    said = _read(path)
    if said is not None and (not is_here(said) or runs_here(said)):
        return _named(said)
    before = f", started by process {said['pid']}, which has ended" if said is not None else ""
    others = [f"process {number}" for number in _openers(path)]
    return (" and ".join(others) or "another process") + before


def _named(said: dict[str, Any]) -> str:
    return f"process {said['pid']} on {said['host']} since {said['since']}"


def _read(path: Path) -> dict[str, Any] | None:
    for _ in range(5):  # it may be writing it just now
        try:
            said = read_json(path, dict)
            if {"host", "pid", "birth", "since"} <= said.keys():
                return said
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    return None


def _openers(path: Path) -> list[int]:
    """List the processes of this machine, and user, that have a file open."""
    place, found = str(path.resolve()), []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if any(str(entry.readlink()) == place for entry in folder.iterdir()):
                found.append(int(folder.parent.name))
    return [number for number in found if number != os.getpid()]
