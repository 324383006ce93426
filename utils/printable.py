"""Text out of files, made harmless for a terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn, TextIO

MOST_SHOWN = 60  # characters of a value
_ESCAPED = re.compile(r"[^\n\t -~]")  # what needs a closer look; most messages are ASCII and have none of it


def printable(text: str, length: int | None = None, lines: bool = False) -> str:
    """Write out control characters, escape sequences and half characters, as ``\\x1b``, instead of sending them on.

    Args:
        text: Anything.
        length: Characters that are kept; None keeps all.
        lines: Leave line breaks and tabs what they are, for texts of several lines.
    """
    kept = text if length is None else text[:length]
    if not lines or _ESCAPED.search(kept):
        kept = "".join(c if c.isprintable() or (lines and c in "\n\t") else ascii(c)[1:-1] for c in kept)
    return kept if length is None or len(text) <= length else f"{kept}..."


def shown(value: object) -> str:
    """Write a setting's value as a user would, short, and without anything that a terminal obeys."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    written = printable(str(value), MOST_SHOWN)
    return written if len(written) <= MOST_SHOWN else f"{written[: MOST_SHOWN - 3]}..."


class PrintableRecord(logging.LogRecord):
    """A message in a log that cannot steer the terminal by what it quotes from a file."""

    def getMessage(self) -> str:  # noqa: N802  (of the base class)
        """See the base class."""
        return printable(super().getMessage(), lines=True)


def printable_logs() -> None:
    """Make all messages of this process's logs printable, wherever they go."""
    logging.setLogRecordFactory(PrintableRecord)


def exit_with(message: str) -> NoReturn:
    """End the program with one line on standard error and exit code 1.

    Raises:
        SystemExit: Always.
    """
    sys.exit(printable(message))


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """End without a word where the reader of what is printed has gone, as in ``... | head``.

    Raises:
        SystemExit: In that case, with what a shell says of a command that SIGPIPE ended.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        end_quietly()
        sys.exit(128 + signal.SIGPIPE)


def end_quietly() -> None:
    """Keep the interpreter, when the process ends, from complaining that nobody reads what is left to print."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError:
        return  # it is closed


def write_printable(text: str, stream: TextIO) -> None:
    """Write a page of text that quotes files, in whatever characters the stream can show."""
    shown = printable(text, lines=True)
    encoding = stream.encoding if isinstance(stream, io.TextIOWrapper) else None
    with quiet_pipe():
        stream.write(shown.encode(encoding, "backslashreplace").decode(encoding) if encoding else shown)
