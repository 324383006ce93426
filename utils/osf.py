"""The project of DINO-WM on the Open Science Framework: its files, with what its listing says of them."""

from __future__ import annotations

import logging
import os
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from utils.downloads import Expected
from utils.http import DownloadError, read_page
from utils.reading.json_file import parse_json
from utils.reading.opening import FileError

log = logging.getLogger(__name__)

API = "https://api.osf.io/v2"
FILES = "https://osf.io/download"
PROJECT = "bmw48"
KEY = "a56a296ce3b24cceaf408383a175ce28"  # of the link for readers that DINO-WM's authors publish
BROWSER = f"https://osf.io/{PROJECT}/?view_only={KEY}"
NOT_STATED = "licence not stated"
MOST_PAGES = 50


@dataclass(frozen=True, kw_only=True)
class OsfFile:
    """A file of the project.

    Attributes:
        name: Of the file.
        number: Its short id.
        known: What was known of it when this was written, for when the listing cannot be had.
        unpacked: About how many bytes are in it.
    """

    name: str
    number: str
    known: Expected
    unpacked: int

    @property
    def url(self) -> str:
        """Where it can be downloaded; the environment's ``OSF_FILES`` is another server."""
        return _with_key(f"{os.environ.get('OSF_FILES', FILES).rstrip('/')}/{self.number}/")


def describe(file: OsfFile) -> Expected:
    """Return size and digests of a file, as the project's listing has them; if it cannot be had, those known before."""
    try:
        found = next((each for each in _listed() if _at(each, "attributes", "name") == file.name), None)
        reason = f"{file.name} is not in the listing of {BROWSER}"
    except (DownloadError, FileError) as error:
        found, reason = None, str(error)
    if found is None:
        log.warning("%s; going by the size and the checksum that were known of %s before", reason, file.name)
        return file.known
    size, hashes = _at(found, "attributes", "size"), ("attributes", "extra", "hashes")
    return Expected(
        size=size if type(size) is int else None,
        sha256=_digest(_at(found, *hashes, "sha256"), 64),
        md5=_digest(_at(found, *hashes, "md5"), 32),
    )


def licence() -> str:
    """Say which licence the project states."""
    try:
        node = _asked(f"{_api()}/nodes/{PROJECT}/?embed=license")
    except (DownloadError, FileError):
        return "licence not known, as OSF does not answer"
    name = _at(node, "data", "embeds", "license", "data", "attributes", "name")
    return f"licence {name}" if isinstance(name, str) and name else NOT_STATED


def _listed() -> Iterator[dict[str, Any]]:
    """Walk through the project's files, page by page and folder by folder."""
    waiting = [f"{_api()}/nodes/{PROJECT}/files/osfstorage/"]
    for _ in range(MOST_PAGES):
        if not waiting:
            return
        page = _asked(waiting.pop(0))
        entries = page.get("data")
        for entry in entries if isinstance(entries, list) else []:
            if _at(entry, "attributes", "kind") == "file":
                yield entry
            else:
                waiting.append(_at(entry, "relationships", "files", "links", "related", "href"))
        waiting.append(_at(page, "links", "next"))
        waiting = [url for url in waiting if isinstance(url, str) and url.startswith(_api() + "/")]


def _asked(url: str) -> dict[str, Any]:
    return parse_json(read_page(_with_key(url)), dict, url.partition("?")[0], "try again later")


def _api() -> str:
    return os.environ.get("OSF_API", API).rstrip("/")


def _with_key(url: str) -> str:
    """Add the key for readers, which every single request needs."""
    if "view_only=" in url:
        return url
    return f"{url}{'&' if urllib.parse.urlsplit(url).query else '?'}view_only={KEY}"


def _at(value: Any, *keys: str) -> Any:
    """Follow keys into nested objects; None where there is no such thing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _digest(value: object, length: int) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", value) else None
