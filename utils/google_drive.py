"""Files that are shared on Google Drive: where they can be downloaded, past the page that warns of large ones."""

from __future__ import annotations

import os
import urllib.parse
from html.parser import HTMLParser

from utils.downloads import Expected
from utils.http import MOST_OF_A_PAGE, DownloadError, announced, opened, said

HOST = "https://drive.usercontent.google.com"
HEADERS = {"User-Agent": "Mozilla/5.0"}  # others are sent pages that are meant for them
FORM = "download-form"
MOST_PAGES = 3


def view(number: str) -> str:
    """Give the address of a file in a browser."""
    return f"https://drive.google.com/file/d/{number}/view"


def locate(number: str) -> tuple[str, Expected]:
    """Find out where a file can be downloaded, and how long it is; the environment's ``GDRIVE`` is another host.

    Args:
        number: Its id.

    Raises:
        DownloadError: If the file is not given away, with the reason that Drive states: too many have fetched it.
    """
    query = urllib.parse.urlencode({"id": number, "export": "download", "confirm": "t"})
    url = f"{os.environ.get('GDRIVE', HOST).rstrip('/')}/download?{query}"
    for _ in range(MOST_PAGES):
        with opened(url, HEADERS) as response:
            if response.headers.get_content_type() != "text/html":
                return url, Expected(size=announced(response.headers))
            page, here = response.read(MOST_OF_A_PAGE).decode("utf-8", "replace"), response.url
        form = _Form(page)
        if form.action is None:
            raise DownloadError(f"Google Drive does not give the file away now{said(page)}")
        url = f"{urllib.parse.urljoin(here, form.action)}?{urllib.parse.urlencode(form.inputs)}"
        if not url.startswith(("https://", "http://")):
            break
    raise DownloadError("Google Drive answers with one page after the other instead of the file")


class _Form(HTMLParser):
    """The form by which Drive asks whether one wants a file that it has not scanned for viruses.

    Attributes:
        action: Where it is sent; None if the page has no such form.
        inputs: What is sent.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.inputs: dict[str, str] = {}
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See the base class."""
        given = dict(attrs)
        if tag == "form" and given.get("id") == FORM:
            self.action, self._inside = given.get("action"), True
        elif tag == "input" and self._inside and given.get("name"):
            self.inputs[str(given["name"])] = given.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        """See the base class."""
        if tag == "form":
            self._inside = False
