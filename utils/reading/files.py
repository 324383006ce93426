"""Opening files that may be anything."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class FileError(ValueError):
    """A file is broken, or something else than a file; the message names it and says what to do."""


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read its bytes; a pipe, which would never end, or a device in its place is refused at once.

    Raises:
        FileError: If it is no file.
        OSError: If there is nothing of that name, or it may not be read.
    """
    _check(path, path.stat().st_mode)  # before: opening a device can do things
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(handle).st_mode)  # after: it may be another one by now
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """The whole content of a small file.

    Args:
        path: the file. most: bytes that it may have.

    Raises:
        FileError: If it is larger, or no file.
        OSError: If it cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FileError(f"{path} is larger than {most / 1e6:g} MB, more than such a file ever is")
    return content


def _check(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise FileError(f"{path} is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file; put the file there")
