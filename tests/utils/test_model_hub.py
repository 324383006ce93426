"""Models of a hub, from a stand-in on this machine."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from launch.paths import readable_paths
from utils.http import DownloadError
from utils.model_hub import Address, fetch_model

COMMIT = "a1" * 20
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "README.md": b"# A model",
    "code.py": b"print('never')",
    "history/model.safetensors": b"older",
}


class Hub(ThreadingHTTPServer):
    """A hub with one repository.

    Attributes:
        files: In it, by name.
        asked: Paths of all requests, with the token that came.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(FILES)
        self.asked: list[tuple[str, str | None]] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        path = self.path.partition("?")[0]
        if path == "/api/models/me/model/revision/main":
            self.answer(json.dumps({"sha": COMMIT}).encode())
        elif path == f"/api/models/me/model/tree/{COMMIT}":
            listed = [{"type": "file", "path": n, "size": len(c), "oid": "b"} for n, c in self.server.files.items()]
            self.answer(json.dumps(listed).encode())
        elif (name := path.removeprefix(f"/me/model/resolve/{COMMIT}/")) in self.server.files:
            self.answer(self.server.files[name])
        else:
            self.answer(b"", 404)

    def answer(self, content: bytes, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_only_files_whose_names_are_known_are_taken_of_one_commit(hub):
    place = fetch_model("hf://me/model")
    assert place == Path(f"outputs/hub/me--model/{COMMIT[:12]}")
    notes = {"config.json.json", "model.safetensors.json", "README.md.json"}
    assert names(place) == {"config.json", "model.safetensors", "README.md"} | notes
    assert (place / "model.safetensors").read_bytes() == b"weights"


def test_again_nothing_is_downloaded(hub):
    fetch_model("hf://me/model")
    hub.asked.clear()
    fetch_model("hf://me/model")
    assert not [path for path, _ in hub.asked if "resolve" in path]


def test_a_file_of_several_is_named(hub):
    hub.files |= {"one.pth.tar": b"1", "two.pth.tar": b"2"}
    with pytest.raises(DownloadError, match=r"3 weights files \(model\.safetensors, one\.pth\.tar.*: name one"):
        fetch_model("hf://me/model")
    place = fetch_model("hf://me/model/two.pth.tar")
    assert place.read_bytes() == b"2"
    assert "one.pth.tar" not in names(place.parent)
    with pytest.raises(DownloadError, match=r"has no three\.pt; it has"):
        fetch_model("hf://me/model@main/three.pt")


def test_a_folder_of_ones_own_and_a_token_are_used(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "mine")
    assert fetch_model("hf://me/model", tmp_path / "here") == tmp_path / "here"
    assert {token for _, token in hub.asked} == {"Bearer mine"}


def test_out_of_reach_a_commit_that_is_there_needs_no_server_for_its_name(hub, monkeypatch):
    fetch_model("hf://me/model/model.safetensors")
    hub.asked.clear()
    assert fetch_model(f"hf://me/model@{COMMIT}/model.safetensors").read_bytes() == b"weights"
    assert hub.asked == []


def test_a_repository_that_is_not_there_is_one_line(hub):
    with pytest.raises(DownloadError, match=r"models/me/other/revision/main: the server says 404"):
        fetch_model("hf://me/other")


@pytest.mark.parametrize("text", ["hf://me", "hf://me/../x", "hf://me/model/a/b.pt", "https://x/y", "hf://me/model@"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(DownloadError, match="is no address of a model"):
        Address.of(text)


def test_a_command_line_gets_the_path_of_what_was_fetched(hub):
    assert readable_paths(["ckpt_path=hf://me/model"]) == [f"ckpt_path=outputs/hub/me--model/{COMMIT[:12]}"]
    with pytest.raises(SystemExit, match=r"error: ckpt_path=hf://me/other: http.* the server says 404"):
        readable_paths(["ckpt_path=hf://me/other"])
