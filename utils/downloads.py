"""Downloading large files: resumed where they were cut, checked, and never there half."""

from __future__ import annotations

import contextlib
import email.utils
import fcntl
import hashlib
import logging
import os
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.files import sync_folder, write_json
from utils.http import (
    MOST_OF_A_PAGE,
    OPENER,
    TIMEOUT,
    DownloadError,
    announced,
    failure,
    refusal,
    said,
    without_network,
    written,
)  # fmt: skip
from utils.reading.json_file import read_json
from utils.reading.opening import FileError

log = logging.getLogger(__name__)

PAUSES = (1, 2, 4, 8, 16, 32, 60, 60)  # seconds before trying again; a piece that came begins them anew
MOST_WAIT = 600.0  # seconds that a server may ask to wait
AGAIN = {408, 425, 429, 500, 502, 503, 504}  # answers that another time may differ
CHUNK = 1 << 20
WITHOUT_CONTACT = 2  # further attempts while no server has been reached


class _ChangedError(Exception):
    """What has come so far is of no use: the file on the server is another one."""


class _AgainError(Exception):
    """Another attempt may succeed.

    Attributes:
        wait: Seconds that the server asks to wait, if it does.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known of a file before it comes; None is not known.

    Attributes:
        size: Bytes.
        sha256: Hexadecimal digest.
        md5: The same, where nothing better is known.
    """

    size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    def differs(self, path: Path) -> str | None:
        """Say how a file differs from this, if it does."""
        found = path.stat().st_size
        if self.size is not None and found != self.size:
            return f"it has {found} bytes instead of {self.size}"
        for kind in ("sha256", "md5"):
            wanted = getattr(self, kind)
            if wanted is not None and (digest := _digest(path, kind)) != wanted.lower():
                return f"its {kind.upper().replace('SHA', 'SHA-')} is {digest} instead of {wanted}"
        return None


@dataclass
class _Part:
    """A file that is coming.

    Attributes:
        url: Its address.
        path: Where it gathers.
        headers: Sent with every request.
        total: Its size, once the server or somebody else has said it.
        validator: The server's mark of this version of it.
    """

    url: str
    path: Path
    headers: Mapping[str, str]
    total: int | None = None
    validator: str | None = None
    notes: Path = field(init=False)

    def __post_init__(self) -> None:
        """Go on with what an earlier attempt, or another process, has left."""
        self.notes = self.path.with_name(self.path.name + ".json")
        with contextlib.suppress(OSError, FileError):
            said = read_json(self.notes, dict)
            if said.get("url") == written(self.url) and self.path.is_file():
                self.validator = said["validator"] if isinstance(said.get("validator"), str) else None
        if self.validator is None:
            self.drop()

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def drop(self) -> None:
        """Forget what has come."""
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)
        self.validator = None

    def note(self, headers: Any) -> None:
        """Write down which version of the file this is; weak marks do not promise the same bytes."""
        tag = headers.get("ETag")
        self.validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
        write_json(self.notes, {"url": written(self.url), "validator": self.validator})


def download(
    url: str,
    destination: Path,
    expected: Expected | None = None,
    headers: Mapping[str, str] | None = None,
    pauses: Sequence[float] = PAUSES,
) -> None:
    """Download a file, with a progress bar; ``destination`` appears when it is complete and checked.

    What was cut short goes on where it stopped, in this call or a later one, if the server can. A file that is there
    already is left alone if it is the expected one, or if nothing is known but the note that an earlier call left.

    Args:
        url: Where it is.
        destination: Gets a note beside it, ``<name>.json``: address, size, SHA-256 and date.
        expected: What is known of it.
        headers: For every request; ``Authorization`` goes to the host of ``url`` alone.
        pauses: Seconds before each further attempt.

    Raises:
        DownloadError: If it cannot be had, is another file, or something else is there; the part that has come is
            kept, unless it is wrong.
        OSError: If the disk does not take it.
    """
    expected = expected or Expected()
    with alone(destination):
        if destination.exists():
            _check_there(destination, expected)
            return
        part = _Part(url, destination.with_name(destination.name + ".part"), headers or {}, expected.size)
        _gather(part, pauses)
        if differs := expected.differs(part.path):
            part.drop()
            raise DownloadError(f"{written(url)}: what came is another file, {differs}; nothing was kept")
        _name(part, destination)


def _gather(part: _Part, pauses: Sequence[float]) -> None:
    """Request the file until all of it is there."""
    failures, at_first = 0, part.size
    while True:
        before, most = part.size, len(pauses)
        try:
            return _request(part)
        except _ChangedError:
            part.drop()
            reason, wait = "the file on the server has changed", None
        except _AgainError as error:
            reason, wait = str(error), error.wait
        except (TimeoutError, ConnectionError, HTTPException, urllib.error.URLError) as error:
            reason, wait = failure(error), None
            if without_network(error) and part.size == at_first:
                most = min(most, WITHOUT_CONTACT)
        failures = 0 if part.size > before else failures + 1
        if failures > most:
            kept = f"; {part.size} bytes are kept, the same command goes on with them" if part.size else ""
            raise DownloadError(f"{written(part.url)}: {reason}{kept}")
        pause = pauses[max(failures, 1) - 1] if pauses else 0.0
        seconds = min(wait, MOST_WAIT) if wait is not None else pause * random.uniform(0.75, 1.25)
        log.warning("%s: %s; trying again in %.0f s, at %d bytes", part.path.name, reason, seconds, part.size)
        time.sleep(seconds)


def _request(part: _Part) -> None:
    """Request the rest of the file once, and write what comes."""
    start = part.size
    request = urllib.request.Request(part.url, headers={"Accept-Encoding": "identity", **part.headers})
    if start and part.validator:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", part.validator)
    try:
        response = OPENER.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after what has come
            error.close()
            if start and start == part.total:
                return
            raise _ChangedError from None
        if error.code not in AGAIN:
            raise DownloadError(f"{written(part.url)}: {refusal(error)}") from None
        raise _AgainError(refusal(error), _seconds(error.headers.get("Retry-After"))) from None
    with response:
        _write(part, response, start)


def _write(part: _Part, response: Any, start: int) -> None:
    headers, status = response.headers, getattr(response, "status", None)
    if headers.get_content_type() == "text/html":
        page = response.read(MOST_OF_A_PAGE).decode("utf-8", "replace")
        raise DownloadError(
            f"{written(part.url)}: a web page came instead of the file{said(page)}; open it in a browser"
        )
    length = announced(headers)
    if status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range") or "")
        if found is None or int(found[1]) != start:
            raise _ChangedError
    else:
        part.drop()
        start = 0
    total = None if length is None else start + length
    if part.total is not None and total not in (None, part.total):
        part.drop()
        raise DownloadError(f"{written(part.url)}: the server offers {total} bytes instead of {part.total}")
    part.total = total if part.total is None else part.total
    if not start:
        part.note(headers)
    bar = tqdm(total=part.total, initial=start, unit="B", unit_scale=True, desc=part.path.name.removesuffix(".part"))
    with bar, part.path.open("ab") as file:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
            if part.total is not None and file.tell() > part.total:  # of a server that says no length
                part.drop()
                raise DownloadError(f"{written(part.url)}: the server sends more than {part.total} bytes")
    if part.total is not None and part.size != part.total:
        raise _AgainError(f"the connection ended after {part.size} of {part.total} bytes")


def _name(part: _Part, destination: Path) -> None:
    """Give a complete file its name, and leave a note beside it."""
    with part.path.open("rb") as file:
        os.fsync(file.fileno())
    digest, size = _digest(part.path, "sha256"), part.size
    part.path.replace(destination)
    sync_folder(destination.parent)
    part.notes.unlink(missing_ok=True)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(_note_of(destination), {"url": written(part.url), "size": size, "sha256": digest, "date": date})


def _check_there(path: Path, expected: Expected) -> None:
    """Accept a file that is there: by its digest, or else by its size and the note beside it.

    Raises:
        DownloadError: If it is another file.
    """
    known = expected
    if expected == Expected(size=expected.size):  # no digest
        with contextlib.suppress(OSError, FileError):
            said = read_json(_note_of(path), dict)
            size = said["size"] if type(said.get("size")) is int else None
            known = Expected(size=expected.size if expected.size is not None else size)
    if differs := known.differs(path):
        raise DownloadError(f"{path} is there and is another file, {differs}: delete it and try again")


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


@contextlib.contextmanager
def alone(destination: Path) -> Iterator[None]:
    """Wait for other processes that bring the same here."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    lock = destination.with_name(destination.name + ".part.lock")
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process fetches %s: waiting for it", destination)
            fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _seconds(text: str | None) -> float | None:
    """Read ``Retry-After``: seconds, or a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None
