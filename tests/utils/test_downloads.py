"""Downloads from a server on this machine that cuts, refuses, changes and redirects."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from utils.downloads import Expected, download
from utils.http import DownloadError

CONTENT = bytes(range(256)) * 40
NOW = (0.0, 0.0)


class Server(ThreadingHTTPServer):
    """Serves one file.

    Attributes:
        content: Of the file.
        tag: Its ETag.
        cuts: Bytes after which the answers end, one for each.
        codes: What is answered instead, one for each.
        ranges: Whether parts can be asked for.
        leads_to: Where a request is sent on to.
        kind: Of the content.
        says_length: Whether its answers begin with their length.
        asked: Headers of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.ranges, self.kind = CONTENT, '"one"', True, "application/octet-stream"
        self.cuts: list[int] = []
        self.codes: list[tuple[int, dict[str, str]]] = []
        self.leads_to: str | None = None
        self.says_length = True
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file?view_only=secret&id=1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(dict(self.headers))
        if server.codes or server.leads_to:
            code, headers = server.codes.pop(0) if server.codes else (302, {"Location": str(server.leads_to)})
            self.send_response(code)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()
            return
        start = 0
        if server.ranges and "Range" in self.headers and self.headers.get("If-Range") == server.tag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start > len(server.content) - 1:
            self.send_response(416)
            self.end_headers()
            return
        rest = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", server.kind)
        self.send_header("ETag", server.tag)
        if server.says_length:
            self.send_header("Content-Length", str(len(rest)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.end_headers()
        self.wfile.write(rest[: server.cuts.pop(0)] if server.cuts else rest)


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    """Two servers, on ports of their own."""
    both = [Server(), Server()]
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True) for server in both]
    for thread in threads:
        thread.start()
    yield both
    for server in both:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(servers) -> Server:
    return servers[0]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "new" / "file.bin"


def get(server: Server, path: Path, **expected: object) -> None:
    download(server.url, path, Expected(**expected), pauses=NOW)


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_a_whole_file_comes_with_a_note_and_without_the_key_of_its_address(server, path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    get(server, path, size=len(CONTENT), sha256=digest, md5=hashlib.md5(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT
    assert names(path) == ["file.bin", "file.bin.json"]
    note = json.loads((path.parent / "file.bin.json").read_text())
    assert (note["size"], note["sha256"]) == (len(CONTENT), digest)
    assert "secret" not in note["url"]
    assert "id=1" in note["url"]


@pytest.mark.parametrize("known", [{}, {"size": len(CONTENT)}, {"sha256": hashlib.sha256(CONTENT).hexdigest()}])
def test_what_is_there_is_not_asked_for_again(server, path, known):
    for _ in range(2):
        get(server, path, **known)
    assert len(server.asked) == 1


def test_a_server_that_says_no_length_cannot_fill_the_disk(server, path):
    server.says_length, server.content = False, CONTENT * 400  # several pieces
    with pytest.raises(DownloadError, match=rf"sends more than {len(CONTENT)} bytes"):
        get(server, path, size=len(CONTENT))
    assert names(path) == []


def test_another_file_in_its_place_is_left_alone(server, path):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"file\.bin is there and is another file, it has 4 bytes instead of 10240"):
        get(server, path, size=len(CONTENT))
    assert path.read_bytes() == b"mine"


def test_a_cut_connection_goes_on_where_it_was(server, path):
    server.cuts = [1000, 2000]
    get(server, path)
    assert path.read_bytes() == CONTENT
    assert [asked.get("Range") for asked in server.asked] == [None, "bytes=1000-", "bytes=3000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server, path):
    server.cuts = [1000, 0]
    with pytest.raises(DownloadError, match="1000 bytes are kept, the same command goes on with them"):
        download(server.url, path, pauses=())
    get(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1]["Range"] == "bytes=1000-"


def test_a_server_without_ranges_sends_all_of_it_again(server, path):
    server.cuts, server.ranges = [1000], False
    get(server, path)
    assert path.read_bytes() == CONTENT


def test_a_file_that_changes_meanwhile_is_begun_anew(server, path):
    server.cuts = [1000, 0]
    with pytest.raises(DownloadError):
        download(server.url, path, pauses=())
    server.content, server.tag = CONTENT[::-1], '"two"'
    get(server, path)
    assert path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"size": 7}, "offers 10240 bytes instead of 7"),
        ({"sha256": "0" * 64}, "its SHA-256 is .* instead of 0000"),
        ({"md5": "0" * 32}, "its MD5 is .* instead of 0000"),
    ],
)
def test_another_file_is_refused_and_not_kept(server, path, known, words):
    with pytest.raises(DownloadError, match=words):
        get(server, path, **known)
    assert names(path) == []


def test_a_busy_server_is_asked_again_as_it_says(server, path, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr("utils.downloads.time.sleep", waited.append)
    server.codes = [(503, {"Retry-After": "7"}), (429, {}), (503, {"Retry-After": "9999"})]
    download(server.url, path, pauses=(1.0, 2.0, 4.0))
    assert path.read_bytes() == CONTENT
    assert waited[0] == 7
    assert 1.5 <= waited[1] <= 2.5
    assert waited[2] == 600


@pytest.mark.parametrize(("code", "requests"), [(404, 1), (403, 1), (503, 3)])
def test_what_another_attempt_cannot_change_fails_at_once(server, path, code, requests):
    server.codes = [(code, {})] * 5
    with pytest.raises(DownloadError, match=f"the server says {code}"):
        get(server, path)
    assert len(server.asked) == requests
    assert not path.exists()


def test_a_redirect_is_followed_and_the_other_host_is_told_no_secret(servers, path):
    first, second = servers
    first.leads_to = second.url
    download(first.url, path, headers={"Authorization": "Bearer secret"})
    assert path.read_bytes() == CONTENT
    assert first.asked[0]["Authorization"] == "Bearer secret"
    assert "Authorization" not in second.asked[0]


def test_a_web_page_is_not_taken_for_the_file(server, path):
    server.kind = "text/html; charset=utf-8"
    server.content = b'<title>Drive</title><p class="uc-error-subcaption">Too many users\nhave viewed it.</p>'
    with pytest.raises(DownloadError, match=r"a web page came .* \(Too many users have viewed it\.\)"):
        get(server, path)
    assert not path.exists()


def test_a_server_that_is_not_there_is_one_line(path):
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:1/x: .*refused"):
        download("http://127.0.0.1:1/x", path, pauses=NOW)
