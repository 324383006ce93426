"""The revision of this code."""

from __future__ import annotations

from pathlib import Path

from utils.child_processes import run_command


def revision() -> str:
    """Name the revision of this code; "-dirty" at its end where files were changed since, "unknown" without git."""
    done = run_command("git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty")
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def is_committed(name: str) -> bool:
    """Whether what ``revision`` gave names the code it was asked of, which then can be had again."""
    return name != "unknown" and not name.endswith("-dirty")
