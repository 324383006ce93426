"""A stand-in on this machine for the servers that models and data are fetched from."""

import io
import json
import socket
import zipfile
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What a path is answered with.

    Attributes:
        content: Of the file or page.
        kind: Of the content.
        code: Of the answer.
        leads_to: Where a request is sent on to.
        cuts: Bytes after which answers end, one for each.
        lies: Bytes that are announced beyond those that come.
    """

    content: bytes = b""
    kind: str = "application/zip"
    code: int = 200
    leads_to: str = ""
    cuts: tuple[int, ...] = ()
    lies: int = 0


class PublicServer(ThreadingHTTPServer):
    """Answers paths, without what follows a question mark.

    Attributes:
        answers: By path.
        asked: All requests: the path with its question, and the range.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def page(self, path: str, text: str, code: int = 200) -> None:
        self.answers[path] = Answer(text.encode(), "text/html; charset=utf-8", code)

    def json(self, path: str, value: object) -> None:
        self.answers[path] = Answer(json.dumps(value).encode(), "application/vnd.api+json")


class _Handler(BaseHTTPRequestHandler):
    server: PublicServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        answer = self.server.answers.get(self.path) or self.server.answers.get(self.path.partition("?")[0])
        answer = answer or Answer(code=404)
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        rest = answer.content[start:]
        self.send_response(302 if answer.leads_to else 206 if start else answer.code)
        self.send_header("Content-Type", answer.kind)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(rest) + answer.lies))
        if answer.leads_to:
            self.send_header("Location", answer.leads_to)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(answer.content) - 1}/{len(answer.content)}")
        self.end_headers()
        cut, answer.cuts = (answer.cuts[0], answer.cuts[1:]) if answer.cuts else (len(rest), ())
        self.wfile.write(rest[:cut])
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_WR)  # the end, not a reset that takes what was sent with it


def zipped(files: dict[str, bytes]) -> bytes:
    """Make a zip archive of files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()
