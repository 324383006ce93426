"""The first thing that every command does: it answers what needs no torch, which takes seconds to load.

``--help`` and misspelt names are answered here, paths are put into Hydra's grammar, ``resume=`` is expanded, and a
Ctrl-C ends quietly until the work begins.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType


def check_command_line(
    command: str,
    about: str | None,
    config_name: str,
    entry: str | None = None,
    adds: bool = False,
    words: Callable[[list[str]], list[str]] | None = None,
) -> None:
    """Check the command line in ``sys.argv`` and put it into the words that Hydra reads.

    Args:
        command: As the user types it.
        about: The docstring of the entry.
        config_name: Of its default config.
        entry: "train" or "plan", if ``resume=`` continues its runs.
        adds: Whether its groups hold what users add.
        words: Puts arguments of its own into Hydra's words.

    Raises:
        SystemExit: With one line if a name is wrong; without a word after ``--help``.
    """
    end_on_interrupt()
    from utils.printable import end_quietly, exit_with, quiet_pipe

    atexit.register(end_quietly)

    with quiet_pipe():
        try:
            sys.argv[1:] = words(sys.argv[1:]) if words else sys.argv[1:]
            sys.argv[1:] = _answered(command, about or "", config_name, entry, adds)
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:  # a name that is too long, say
            if not _is_first():
                sys.exit(1)  # of several processes one says it
            exit_with(f"error: {error}")


def end_on_interrupt() -> None:
    """Let a Ctrl-C end the process with one line until ``raise_on_interrupt`` is called, wherever it happens to be."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_on_interrupt() -> None:
    """Make a Ctrl-C an exception again, from here on: the work knows what to do then."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process at once: an exception could come out anywhere, in the middle of an import for instance."""
    if _is_first():
        os.write(2, b"interrupted before anything had begun\n")
    os._exit(128 + number)


def _is_first() -> bool:
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _answered(
    command: str,
    about: str,
    config_name: str,
    entry: str | None,
    adds: bool,
) -> list[str]:
    from hydra._internal.utils import get_args_parser

    from launch.composing import Composer, open_folder
    from launch.grammar import is_hydras, is_sweep
    from launch.named_environment import with_config_name
    from launch.names import Names, check_all
    from launch.paths import readable_paths
    from launch.resume import expand_resume
    from utils.moved_settings import current_overrides

    argv = readable_paths(sys.argv[1:])
    argv = current_overrides(expand_resume(argv, entry)) if entry else argv
    argv = with_config_name(argv) if entry == "plan" else argv
    given = get_args_parser().parse_args(argv)
    if given.config_path or given.shell_completion or given.info or given.hydra_help or given.experimental_rerun:
        return argv  # Hydra's own business
    name = (given.config_name or config_name).removesuffix(".yaml")
    folder = Path(given.config_dir) if given.config_dir else None
    if folder:
        open_folder(folder)
    composer = Composer(name, folder)
    settings = [text for text in given.overrides if not is_hydras(text)]
    replaced = Names(composer, settings, adds).check(is_sweep(argv))
    if given.help:
        from launch.help import help_text

        sys.stdout.write(help_text(command, about, composer, settings))
        sys.stdout.flush()
        sys.exit(0)
    argv = [replaced.get(text, text) for text in argv]
    check_all(composer, [replaced.get(text, text) for text in given.overrides], argv)
    return argv
