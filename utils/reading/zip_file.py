"""Opening zip archives whose index may be anything."""

from __future__ import annotations

import zipfile
from typing import Any, BinaryIO

INDEX_BYTES = 200  # of an entry of the index, more than a usual one takes


def checked_zip(file: BinaryIO, most: int) -> zipfile.ZipFile:
    """A zip archive of at most ``most`` entries; without that limit, a small file's index takes seconds to read.

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
