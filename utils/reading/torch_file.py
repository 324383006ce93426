"""Reading whole files of ``torch.save`` that hold plain data: containers, numbers, texts, arrays and tensors."""

from __future__ import annotations

import functools
import io
import mmap
import os
from pathlib import Path
from typing import Any

from utils.reading.checksums import Checksums
from utils.reading.legacy_archive import open_archive
from utils.reading.opening import FileError, failure_reason, open_regular, read_regular
from utils.reading.pickles import ForeignNamesError, load_pickle
from utils.reading.plain_values import PlainValues, plain_name
from utils.reading.torch_archive import MAX_PICKLE

SPARE_BYTES = 1_000_000  # that texts and arrays of a small file may take beyond its own size
AGAIN = "restore it from a copy, or make it again"


def read_torch(path: Path, remedy: str = AGAIN) -> Any:
    """Read what ``torch.save`` wrote, in the form of today's or of earlier versions, onto the CPU.

    Raises:
        FileError: If it is damaged, holds anything but plain data, or more than a file of its size can.
        OSError: If it cannot be opened.
    """
    is_sound = check_whole(path)
    try:
        with open_archive(path, is_sound) as archive:
            read = functools.partial(archive.tensor, keep_order=True)
            values = PlainValues(2 * archive.size + SPARE_BYTES, read)
            return values.finished(archive.load(plain_name, strict=True))
    except Exception as error:  # damaged bytes make anything of the readers
        raise broken(path, error, remedy) from None


def read_plain_pickle(path: Path, remedy: str = AGAIN) -> Any:
    """Read what ``pickle.dump`` wrote, without tensors; raises as ``read_torch`` does."""
    content = read_regular(path, MAX_PICKLE)
    Checksums(path, memoryview(content)).check()
    try:
        loaded = load_pickle(io.BytesIO(content), plain_name, strict=True)
        return PlainValues(2 * len(content) + SPARE_BYTES).finished(loaded)
    except Exception as error:  # damaged bytes make anything of the readers
        raise broken(path, error, remedy) from None


def check_whole(path: Path) -> bool:
    """Compare a file with the checksums in it; one that has none is believed, and False is returned.

    Raises:
        FileError: If they differ, or it is no file.
        OSError: If it cannot be opened.
    """
    with open_regular(path) as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        checksums = Checksums(path, memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    checksums.check()
    return bool(checksums)


def broken(path: Path, error: Exception, remedy: str) -> FileError:
    """Make the error for a file that turned out to be damaged, or to hold something else."""
    if isinstance(error, FileError):
        return error
    if isinstance(error, ForeignNamesError):
        return FileError(
            f"{path} does not load safely: it asks for {error.names}, which plain data never need; nothing of it was "
            f"run. Do not open it in another way before you know who wrote it; {remedy}"
        )
    return FileError(f"{path} is broken ({failure_reason(error)}); {remedy}")
