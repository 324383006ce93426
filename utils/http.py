"""Asking servers: pages and what they refuse, keys that are told to nobody else, and whether there is a network."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any

from utils.printable import printable

TIMEOUT = 60.0  # seconds without a byte
MOST_OF_AN_ANSWER = 4_000_000  # bytes
MOST_OF_A_PAGE = 65_536  # bytes of a web page that came instead of a file
SECRET = {"view_only", "token", "key", "access_token", "confirm", "uuid", "at"}
"""Parameters of an address that are not written down: keys, and what belongs to one visit alone."""


class DownloadError(OSError):
    """A file could not be had; the message is one line."""


def read_page(url: str, headers: Mapping[str, str] | None = None, most: int = MOST_OF_AN_ANSWER) -> str:
    """Read a short text, such as what an interface of a server answers.

    Raises:
        DownloadError: If it cannot be had, or is longer than ``most`` bytes.
    """
    with opened(url, headers) as response:
        content: bytes = response.read(most + 1)
    if len(content) > most:
        raise DownloadError(f"{written(url)}: the answer has more than {most} bytes")
    return content.decode("utf-8", "replace")


@contextlib.contextmanager
def opened(url: str, headers: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Open an address once, and give the answer: its ``headers``, its ``url`` after all redirects, and its ``read``.

    Raises:
        DownloadError: If the server refuses, or cannot be reached.
    """
    request = urllib.request.Request(url, headers=dict(headers or {}))
    try:
        with OPENER.open(request, timeout=TIMEOUT) as response:
            yield response
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{written(url)}: {refusal(error)}") from None
    except DownloadError:
        raise
    except (OSError, HTTPException) as error:
        raise DownloadError(f"{written(url)}: {failure(error)}") from None


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and tells no other host what was meant for the first."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """See the base class."""
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc:
            new.remove_header("Authorization")
        return new


OPENER = urllib.request.build_opener(_SameHost, urllib.request.HTTPCookieProcessor)


def written(url: str) -> str:
    """Give an address as messages and notes have it, without keys."""
    split = urllib.parse.urlsplit(url)
    kept = [(key, value) for key, value in urllib.parse.parse_qsl(split.query) if key not in SECRET]
    return split._replace(query=urllib.parse.urlencode(kept)).geturl()


def announced(headers: Any) -> int | None:
    """How many bytes an answer says it has."""
    text = headers.get("Content-Length") or ""
    return int(text) if text.isdecimal() else None


def refusal(error: urllib.error.HTTPError) -> str:
    """Say what a server says instead of answering, and close the connection."""
    page = ""
    with error, contextlib.suppress(OSError, HTTPException):
        page = error.read(MOST_OF_A_PAGE).decode("utf-8", "replace")
    return f"the server says {error.code} {printable(str(error.reason), 200)}{said(page)}"


def failure(error: Exception) -> str:
    """Say in words what went wrong on the way to a server."""
    reason = printable(str(getattr(error, "reason", error)) or type(error).__name__, 200)
    return f"{reason} (is this machine connected to the internet?)" if without_network(error) else reason


def without_network(error: Exception) -> bool:
    """Whether not even the way to a server was found."""
    reason = getattr(error, "reason", error)
    unreachable = isinstance(reason, OSError) and reason.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    return isinstance(reason, socket.gaierror) or unreachable


def said(page: str) -> str:
    """Find what a web page says: the reason of a refusal, or its title."""
    for pattern in (r'class="uc-error-subcaption"[^>]*>(.*?)</p>', r"<title[^>]*>(.*?)</title>"):
        if found := re.search(pattern, page, re.DOTALL | re.IGNORECASE):
            return f" ({printable(' '.join(re.sub(r'<[^>]*>', '', found[1]).split()), 200)})"
    return ""
