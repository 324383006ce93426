"""Checksums of files of ours, kept behind their content in a way that other programs' readers skip.

Each chunk of a file has one of its own, so that of a large file only what is used need be read. They are
the comment of a zip archive, a free box of an mp4 file, or what follows the end of a pickle.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Literal

import xxhash

from utils.reading.opening import FileError

MARK = b"\x00checked 8XMnKT\x93"  # 16 bytes, the last of the file; a file of others has them by no accident
DAMAGED_MARK = 24  # bits in which a mark may differ and still was one: of 128, other files differ in about 64
SMALLEST = 1 << 18  # bytes of a chunk
MOST_CHUNKS = 4_096  # the comment of a zip archive has at most 65,535 bytes
END = struct.Struct("<QII8s16s")  # bytes before all this, in a chunk, number of chunks, checksum of it, mark

Form = Literal["zip", "mp4", "pickle"]


def append_checksums(path: Path, form: Form) -> None:
    """Add checksums to a finished file, in place.

    Raises:
        OSError: If the disk does not take them.
    """
    with path.open("r+b") as file:
        body = bytearray(8) if form == "mp4" else bytearray()
        size = os.fstat(file.fileno()).st_size + len(body)
        chunk = SMALLEST
        while size > chunk * MOST_CHUNKS:
            chunk *= 2
        count = math.ceil(size / chunk)
        length = 8 * count + END.size
        if form == "mp4":
            file.seek(0, os.SEEK_END)
            file.write(struct.pack(">I4s", 8 + length, b"free"))
        elif form == "zip":
            file.seek(-2, os.SEEK_END)  # how long the comment is: torch writes none
            file.write(struct.pack("<H", length))
        file.seek(0)
        sums = b"".join(_sum(file.read(chunk)) for _ in range(count))
        file.seek(size)
        head = struct.pack("<QII", size, chunk, count)
        file.write(sums + head + _sum(sums + head) + MARK)


class Checksums:
    """The checksums in a file, and which of its chunks have been found to be sound.

    Args:
        path: Of the file, for messages.
        content: All of it.
        sound: Chunks that an earlier opening of the same content found to be sound, by its checksums; added to.

    Attributes:
        size: Bytes before the checksums; 0 where the file has none, as those of others and of earlier versions.

    Raises:
        FileError: If the checksums themselves are damaged.
    """

    def __init__(self, path: Path, content: memoryview, sound: dict[bytes, set[int]] | None = None) -> None:
        self.path, self.size, self.chunk, self._content = path, 0, 0, content
        self._sums = b""
        end = bytes(content[-END.size :])
        distance = sum((a ^ b).bit_count() for a, b in zip(end[-16:], MARK, strict=False))
        if len(end) < END.size or distance > DAMAGED_MARK:
            return
        size, self.chunk, count, total, _ = END.unpack(end)
        start = len(content) - END.size - 8 * count
        sums = bytes(content[max(start, 0) : len(content) - END.size])
        if distance or start != size or count * self.chunk < size or _sum(sums + end[:16]) != total:
            raise damaged(path)
        self.size, self._sums = size, sums
        self._checked = ({} if sound is None else sound).setdefault(sums, set())

    def __bool__(self) -> bool:
        return bool(self.size)

    def check(self, start: int = 0, stop: int | None = None) -> None:
        """Read bytes ``start`` to ``stop`` and compare them with their checksums, unless that was done before.

        Raises:
            FileError: If they differ.
        """
        if not self:
            return
        stop = self.size if stop is None else min(stop, self.size)
        for number in range(start // self.chunk, math.ceil(stop / self.chunk)):
            if number not in self._checked:
                with self._content[number * self.chunk : min((number + 1) * self.chunk, self.size)] as part:
                    if _sum(part) != self._sums[8 * number : 8 * number + 8]:
                        raise damaged(self.path)
                self._checked.add(number)


def damaged(path: Path) -> FileError:
    """Make the error for a checksum that does not fit."""
    return FileError(f"{path} is damaged: its checksum does not fit; restore it from a copy, or make it again")


def _sum(content: bytes | memoryview) -> bytes:
    return xxhash.xxh3_64_digest(content)
