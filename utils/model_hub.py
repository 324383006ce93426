"""Models on Hugging Face's hub: which files a repository has, and the known ones of them brought here."""

from __future__ import annotations

import logging
import os
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.downloads import Expected, download
from utils.files import write_text
from utils.http import DownloadError, read_page
from utils.reading.json_file import parse_json
from utils.reading.opening import FileError

log = logging.getLogger(__name__)

SCHEME = "hf://"
FOLDER = Path("outputs/hub")
ENDPOINT = "https://huggingface.co"
BESIDE = ("config.json", "norm_stats.json", "README.md")
WEIGHTS = re.compile(r"[\w.-]+\.(safetensors|pt|pth|pth\.tar)", re.ASCII)
ADDRESS = re.compile(
    r"hf://(?P<owner>\w[\w.-]*)/(?P<name>\w[\w.-]*?)(@(?P<revision>\w[\w.-]*))?(/(?P<file>[\w.-]+))?", re.ASCII
)
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Address:
    """A repository, and a file in it.

    Attributes:
        repository: "owner/name".
        revision: A branch, a tag or a commit.
        file: Of the weights; None: the only one.
    """

    repository: str
    revision: str = "main"
    file: str | None = None

    @classmethod
    def of(cls, text: str) -> Address:
        """Read ``hf://owner/name[@revision][/file]``.

        Raises:
            DownloadError: If it is none.
        """
        found = ADDRESS.fullmatch(text)
        if found is None:
            raise DownloadError(
                f"{text} is no address of a model: write hf://owner/name, hf://owner/name@revision/file"
            )
        return cls(f"{found['owner']}/{found['name']}", found["revision"] or "main", found["file"])


def fetch_model(text: str, folder: Path | None = None) -> Path:
    """Bring a model here; returns its folder, or its file if the address names one.

    Only files whose names are known are taken, from one commit of the repository. What is there already is left alone;
    a branch whose server is out of reach is what it was last time.

    Args:
        text: See ``Address.of``.
        folder: Where to; None makes one for each commit below ``outputs/hub``.

    Raises:
        DownloadError: If it cannot be had; in one line.
    """
    address = Address.of(text)
    home = FOLDER / address.repository.replace("/", "--")
    commit = _commit(address, home)
    place = folder or home / commit[:12]
    if address.file and (place / address.file).is_file() and COMMIT.fullmatch(address.revision):
        return place / address.file
    for name, expected in _wanted(address, commit).items():
        url = f"{_endpoint()}/{address.repository}/resolve/{commit}/{urllib.parse.quote(name)}"
        download(url, place / name, expected, _headers())
    return place / address.file if address.file else place


def _commit(address: Address, home: Path) -> str:
    """Find the commit that a branch or a tag is at now."""
    if COMMIT.fullmatch(address.revision):
        return address.revision
    known = home / f"{address.revision}.commit"
    try:
        said = _asked(f"models/{address.repository}/revision/{address.revision}", dict).get("sha")
    except DownloadError as error:
        if not known.is_file():
            raise
        commit = known.read_text(encoding="ascii").strip()
        log.warning("%s; taking %s as it was last time, at %s", error, address.repository, commit[:12])
        return commit
    if not isinstance(said, str) or not COMMIT.fullmatch(said):
        raise DownloadError(f"{_endpoint()} names no commit of {address.repository}@{address.revision}")
    write_text(known, said + "\n")
    return said


def _wanted(address: Address, commit: str) -> dict[str, Expected]:
    """Choose the files of a commit: the weights and what is known to lie beside them.

    Raises:
        DownloadError: If there are no weights, or several to choose from.
    """
    listed = _asked(f"models/{address.repository}/tree/{commit}?recursive=true&expand=false", list)
    files = {each["path"]: each for each in listed if isinstance(each, dict) and isinstance(each.get("path"), str)}
    weights = [name for name in files if WEIGHTS.fullmatch(name)]
    if address.file is None and len(weights) != 1:
        names = ", ".join(sorted(weights)[:12]) or "none"
        raise DownloadError(
            f"{SCHEME}{address.repository} has {len(weights)} weights files ({names}): name one, "
            f"{SCHEME}{address.repository}@{address.revision}/<file>"
        )
    if address.file is not None and address.file not in weights:
        raise DownloadError(f"{SCHEME}{address.repository} has no {address.file}; it has {', '.join(weights[:12])}")
    return {name: _expected(files[name]) for name in (*BESIDE, address.file or weights[0]) if name in files}


def _expected(file: dict[str, Any]) -> Expected:
    """Read what the server says of a file; the SHA-256 is known of large ones."""
    large = file.get("lfs")
    digest = large.get("oid") if isinstance(large, dict) else None
    size = file.get("size")
    known = digest if isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest) else None
    return Expected(size=size if type(size) is int else None, sha256=known)


def _asked(path: str, kind: type[Any]) -> Any:
    url = f"{_endpoint()}/api/{path}"
    try:
        return parse_json(read_page(url, _headers()), kind, url)
    except FileError as error:
        raise DownloadError(str(error)) from None


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")


def _headers() -> dict[str, str]:
    token = os.environ.get("HF_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}
