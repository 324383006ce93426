"""Runs commands one after the other in one process: each would spend most of its time on importing torch.

They are lines of stdin, each ``python <script> ...`` or ``python -m <module> ...``. The first that fails ends it.
"""

from __future__ import annotations

import runpy
import shlex
import sys


def follow(command: str) -> None:
    """Do what ``python`` would do.

    Raises:
        SystemExit: If the command fails.
    """
    words = shlex.split(command)[1:]
    print(">>>", command, flush=True)
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise


if __name__ == "__main__":
    for line in sys.stdin.read().splitlines():
        follow(line)
