"""The revision of this code."""

from __future__ import annotations

import subprocess
from pathlib import Path


def revision() -> str:
    """Name the revision of this code; "-dirty" at its end where files were changed since, "unknown" without git."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
