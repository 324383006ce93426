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
    """``python <words>`` as far as users can tell, with the methods of ``subprocess.Popen`` for tests.

    Args:
        words: Of the command line: a script, ``-m`` and a module, or ``-c`` and code; then its arguments.
        cwd: Its working directory.
        env: All its environment variables. Those that are read when torch is loaded have no effect any more.
        output: File for what it writes to standard output.
        errors: File for what it writes to standard error.
        new_session: Whether it leads a process group of its own.
    """

    def __init__(
        self,
        words: Sequence[object],
        cwd: Path,
        env: Mapping[str, str],
        output: Path,
        errors: Path,
        new_session: bool = False,
    ) -> None:
        self._files = (output, errors)
        given = ([str(word) for word in words], str(cwd), dict(env), str(output), str(errors), new_session)
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
            raise subprocess.TimeoutExpired(self._files[0].name, timeout or 0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end, and give all that it wrote to standard output and to standard error."""
        self.wait(timeout)
        output, errors = self._files
        return output.read_text(), errors.read_text()

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self._process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _run(words: list[str], cwd: str, env: dict[str, str], output: str, errors: str, new_session: bool) -> None:
    for descriptor, path in ((1, output), (2, errors)):
        with Path(path).open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    if new_session:
        os.setsid()
    os.environ.clear()
    os.environ |= env
    os.chdir(cwd)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.path[:0] = env.get("PYTHONPATH", "").split(os.pathsep)
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, cwd)
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")
