"""Writing files whole or not at all, and on the disk for good."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from utils.links import LinkError, refuse_links
from utils.retry import Retry

_MARK = "world-models-tmp"  # of the temporary names, so that nobody else's files are taken for ours
_TEMPORARY = re.compile(rf"\..+\.\d+\.[0-9a-f]{{8}}\.{_MARK}", re.DOTALL)


def temporary_path(path: Path) -> Path:
    """Make up a hidden name beside ``path`` that nobody has, and that ``remove_unfinished`` knows as ours."""
    # processes of other machines and other threads write here, too, and may have the same number
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.{_MARK}")


def is_temporary(path: Path) -> bool:
    """Whether a name is one that ``temporary_path`` gives."""
    return _TEMPORARY.fullmatch(path.name) is not None


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, it is synced to disk and takes that name.

    ``write_file`` does the same for a function, and can try again.

    If the block fails or the process dies, ``path`` is what it was before; once it has ended, not even a power loss
    takes the new content away.

    Raises:
        OSError: With the name of ``path``, if the disk does not take it.
        LinkError: If ``path`` is a link, or below one in a folder of ours.
    """
    refuse_links(path)
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary), temporary):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a failing write names no file
    finally:
        with contextlib.suppress(OSError):  # the disk is gone, and the first error says so
            temporary.unlink(missing_ok=True)


def own_file(path: Path) -> None:
    """Make sure that writing into an existing file where it stands, a log, changes no other.

    A file that has other names too (hard links) is copied first, so that these keep what they have.

    Raises:
        LinkError: If ``path`` is a link, or below one in a folder of ours, or no file.
        OSError: If it cannot be copied.
    """
    refuse_links(path)
    if not path.exists():
        return
    if not path.is_file():
        raise LinkError(f"{path} should be a file that can be written: move away what is there")
    if path.stat().st_nlink > 1:
        with atomic_path(path) as temporary:
            shutil.copy2(path, temporary)


def remove_unfinished(folder: Path) -> None:
    """Remove what ``atomic_path`` and ``write_safetensors`` left in a folder when their process was killed.

    Raises:
        LinkError: If ``folder`` is a link in a folder of ours.
    """
    if not folder.is_dir():
        return
    refuse_links(folder / "any")
    for path in filter(is_temporary, list(folder.iterdir())):
        if path.is_dir() and not path.is_symlink():  # of write_safetensors
            for inner in path.iterdir():
                inner.unlink()
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk; a renamed file may otherwise have its old name after a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # file systems that cannot, or need not
            raise
    finally:
        os.close(handle)


def sync_files(folder: Path) -> None:
    """Put the files of a folder that other code wrote on the disk."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def write_file(path: Path, write: Callable[[Path], object], retry: Retry | None = None, needed: int = 0) -> None:
    """Write a file atomically, see ``atomic_path``, trying again while its disk is full or away.

    Args:
        path: Where the file will be.
        write: Makes it under the temporary path that it is given; called again for each attempt.
        retry: How long to try; None gives up at the first failure.
        needed: About how many bytes the file takes, for messages.

    Raises:
        DiskError: If ``retry`` gives up.
        OSError: With the name of ``path``, if the disk does not take it.
        LinkError: If ``path`` is a link, or below one in a folder of ours.
    """

    def attempt() -> None:
        with atomic_path(path) as temporary:
            write(temporary)

    if retry is None:
        attempt()
    else:
        retry.write(path.name, attempt, needed)


def write_text(path: Path, text: str, retry: Retry | None = None) -> None:
    """Write a text file atomically; ``retry``: see ``write_file``."""
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), retry)


def write_json(path: Path, value: Any, retry: Retry | None = None) -> None:
    """Write indented JSON atomically; ``retry``: see ``write_file``."""
    write_text(path, json.dumps(value, indent=2) + "\n", retry)


def sha256(path: Path) -> str:
    """Return the hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
