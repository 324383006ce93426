"""Opening files that may be anything, and saying what is wrong with them."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from utils.printable import printable

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
INDEX_BYTES = 200  # of an entry in the index of a zip archive, more than a usual one takes


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
    """Read the whole content of a small file.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        FileError: If it is larger, or no file.
        OSError: If it cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FileError(f"{path} is larger than {most / 1e6:g} MB, more than such a file ever is")
    return content


def checked_zip(file: BinaryIO, most: int) -> zipfile.ZipFile:
    """Open a zip archive of at most ``most`` entries; without that limit, a small file's index takes seconds to read.

    Raises:
        ValueError: If there are more.
        BadZipFile: If it is none.
    """
    end: Any = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if not end:
        raise zipfile.BadZipFile("it is no zip archive")
    count, index_size = end[zipfile._ECD_ENTRIES_TOTAL], end[zipfile._ECD_SIZE]  # type: ignore[attr-defined]
    if count > most or index_size > most * INDEX_BYTES:
        raise ValueError(f"it is an archive of more than {most} parts")
    return zipfile.ZipFile(file)


def failure_reason(error: Exception) -> str:
    """Say in one line why a file could not be read."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return printable(lines[0].strip(), 300) if lines else type(error).__name__


def _check(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise FileError(f"{path} is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file; put the file there")
