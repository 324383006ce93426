"""Unpacking zip archives from the internet: nothing lands elsewhere, and what was cut short goes on."""

from __future__ import annotations

import contextlib
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Self

from tqdm import tqdm

from utils.files import atomic_path, remove_unfinished
from utils.links import refuse_links
from utils.machine import as_size, free_bytes
from utils.reading.opening import checked_zip, failure_reason, open_regular

MOST_FILES = 200_000  # the largest released data set has 18,718
CHUNK = 1 << 20
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, NotImplementedError)


class ArchiveError(OSError):
    """An archive is damaged, unsafe, or holds something else; the message is one line."""


class Archive:
    """An open zip archive whose names are all harmless; use it in a ``with``.

    Attributes:
        path: The file.
        files: What is in it by name, without folders and what macOS adds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open_regular(path))
            try:
                self._zip = stack.enter_context(checked_zip(file, MOST_FILES))
                self.files = _files(self._zip)
            except DAMAGE as error:
                file.seek(0)
                cut = isinstance(error, zipfile.BadZipFile) and file.read(2) == b"PK"  # the index is at the end
                raise self._refused("it is cut short" if cut else failure_reason(error)) from error
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def only_folder(self, candidates: Iterable[PurePosixPath], name: str) -> PurePosixPath:
        """Choose the one folder that something is in, wherever in the archive it lies.

        Args:
            candidates: Folders that it could be.
            name: Decides between several: that of the folder, or of one above it.

        Raises:
            ArchiveError: If there is none, or there are several.
        """
        folders = sorted(candidates)
        fitting = [folder for folder in folders if name in folder.parts] or folders
        if not fitting:
            raise self._refused(f"it holds something else ({', '.join(map(str, [*self.files][:5])) or 'nothing'})")
        if len(fitting) > 1:
            raise self._refused(f"several folders of it could be {name} ({', '.join(map(str, fitting[:5]))})")
        return fitting[0]

    def unpack(self, chosen: Mapping[str, PurePosixPath], folder: Path) -> None:
        """Write files below ``folder``, each whole or not at all; the checksum of each is compared.

        Files that an earlier attempt wrote are left alone.

        Args:
            chosen: Where below ``folder`` -> name in the archive; written in this order.
            folder: Is made.

        Raises:
            ArchiveError: If the archive is damaged, another file is in the way, or the disk is too small.
            LinkError: If the way to a file leads through a link.
            OSError: If the disk does not take it.
        """
        for name in chosen:
            refuse_links(folder / name, below=folder)
        for place in {(folder / name).parent for name in chosen}:
            remove_unfinished(place)
        missing = {
            name: self.files[inside] for name, inside in chosen.items() if not self._there(folder / name, inside)
        }
        needed = sum(info.file_size for info in missing.values())
        check_room(folder, needed)
        with tqdm(total=needed, unit="B", unit_scale=True, desc=f"unpacking {self.path.name}") as bar:
            for name, info in missing.items():
                with atomic_path(folder / name) as temporary, temporary.open("wb") as file:
                    for chunk in self._chunks(info):
                        file.write(chunk)
                        bar.update(len(chunk))

    def _chunks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """Read a file to its end, where its checksum is compared."""
        try:
            with self._zip.open(info) as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except DAMAGE as error:
            raise self._refused(failure_reason(error)) from error

    def _there(self, path: Path, inside: PurePosixPath) -> bool:
        """Whether a file is unpacked already."""
        if not path.exists():
            return False
        info = self.files[inside]
        if not path.is_file() or path.stat().st_size != info.file_size or _crc(path) != info.CRC:
            raise ArchiveError(f"{path} is there and is another file than that of {self.path}: move it away")
        return True

    def _refused(self, reason: str) -> ArchiveError:
        return ArchiveError(f"{self.path} cannot be unpacked: {reason}; delete it and fetch it again, or look into it")


def check_room(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk of ``folder`` has no room for.

    Raises:
        ArchiveError: With the bytes that are needed, and those that are free.
    """
    if needed > (free := free_bytes(folder)):
        raise ArchiveError(f"{folder} needs {as_size(needed)} of free disk space, and there are {as_size(free)}")


def _files(archive: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """List the files of an archive, once every name in it is harmless.

    Raises:
        ValueError: Naming the first that is not.
    """
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = PurePosixPath(info.filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if name.is_absolute() or ".." in name.parts or re.search(r"\\|^[A-Za-z]:", info.filename):
            raise ValueError(f"{info.filename!r} in it leads out of the folder it is unpacked into")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{info.filename!r} in it is a link or a device")
        if info.is_dir() or "__MACOSX" in name.parts or name.name.startswith("._") or name.name == ".DS_Store":
            continue
        if name in files:
            raise ValueError(f"{info.filename!r} is in it twice")
        files[name] = info
    return files


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
