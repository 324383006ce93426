"""Starting other programs, and processes of ours that never outlive the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

PARENT_CHECK_SECONDS = 0.5


def run_command(*command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it says; one that cannot be run, or takes longer, has failed with that reason."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def end_with_parent(parent: int, grace: float | None = 0.0) -> None:
    """End this process from now on when its parent does, even if that is killed without a word.

    Args:
        parent: Number of the process that started this one.
        grace: Seconds to save, after a SIGTERM; 0 ends the process at once, in the middle of what it does; None gives
            it all the time that it needs.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        if grace != 0:
            os.kill(os.getpid(), signal.SIGTERM)
        if grace is not None:
            time.sleep(grace)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
