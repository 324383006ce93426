"""Commands in processes of their own that start in a fraction of a second: they are forked with torch loaded."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.killing", "train"])  # torch is loaded once; a start takes no 4 s but 0.3


class Forked:
    """``python <script> <arguments>`` as far as users can tell, with the methods of ``subprocess.Popen`` for tests.

    Args:
        script: Path of the entry.
        arguments: Of its command line.
        cwd: Its working directory.
        env: All its environment variables. Those that are read when torch is loaded have no effect any more.
        output: File for what it writes to standard output and standard error.
    """

    def __init__(self, script: Path, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], output: Path) -> None:
        self.output = output
        given = (str(script), [*arguments], str(cwd), dict(env), str(output))
        self._process = CONTEXT.Process(target=_run, args=given, daemon=False)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, or the signal that ended it as a negative number; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Look whether it has ended."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.output.name, timeout or 0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end, and give all that it said."""
        self.wait(timeout)
        return self.output.read_text(), None

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self._process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _run(script: str, arguments: list[str], cwd: str, env: dict[str, str], output: str) -> None:
    with Path(output).open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ |= env
    os.chdir(cwd)
    sys.argv = [script, *arguments]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    runpy.run_path(script, run_name="__main__")
