"""``python -m datasets.fetch``, from a stand-in for OSF."""

import hashlib
import io
import sys
from pathlib import Path

import pytest

from datasets import fetch
from tests.public_server import Answer, PublicServer, zipped

CONTENT = zipped({"wall/wall_single/states.pth": b"states" * 99, "wall/wall_single/obses/episode_000.pth": b"frames"})
KEY = "view_only=a56a296ce3b24cceaf408383a175ce28"


@pytest.fixture
def osf(public, monkeypatch) -> PublicServer:
    """A project with two pages and a folder, in which wall_single.zip lies; DATASET_DIR is ``data``."""
    files = f"{public.url}/v2/nodes/bmw48/files/osfstorage/"
    folder = {"attributes": {"kind": "folder", "name": "datasets"}}
    folder["relationships"] = {"files": {"links": {"related": {"href": f"{files}datasets/"}}}}
    other = {"attributes": {"kind": "file", "name": "outputs.zip", "size": 1}}
    hashes = {"md5": hashlib.md5(CONTENT).hexdigest(), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    wall = {
        "attributes": {"kind": "file", "name": "wall_single.zip", "size": len(CONTENT), "extra": {"hashes": hashes}}
    }
    path = "/v2/nodes/bmw48/files/osfstorage/"
    public.json(f"{path}?{KEY}", {"data": [other], "links": {"next": f"{files}?page=2"}})
    public.json(f"{path}?page=2&{KEY}", {"data": [folder], "links": {"next": None}})
    public.json(f"{path}datasets/?{KEY}", {"data": [wall], "links": {"next": None}})
    licence = {"license": {"data": {"attributes": {"name": "CC-By Attribution 4.0"}}}}
    public.json(f"/v2/nodes/bmw48/?embed=license&{KEY}", {"data": {"embeds": licence}})
    public.answers["/osf/49rnx/"] = Answer(leads_to=f"{public.url}/storage")
    public.answers["/storage"] = Answer(CONTENT)
    Path("data").mkdir()
    monkeypatch.setenv("DATASET_DIR", "data")
    monkeypatch.setitem(fetch.DATASETS, "wall_single", small("wall_single"))
    return public


def small(name: str) -> fetch.Released:
    """A data set that fits any disk."""
    released = fetch.DATASETS[name]
    file = fetch.OsfFile(
        name=released.file.name, number=released.file.number, known=fetch.Expected(), unpacked=5 * 10**5
    )
    return fetch.Released(file, released.table)


@pytest.fixture
def call(monkeypatch):
    """Runs the command; ``typed`` is what a person at a terminal answers."""

    def run(*arguments: str, typed: str | None = None) -> None:
        monkeypatch.setattr(sys, "argv", ["fetch", *arguments])
        answers = io.StringIO(typed or "")
        monkeypatch.setattr(answers, "isatty", lambda: typed is not None)
        monkeypatch.setattr(sys, "stdin", answers)
        fetch.main()

    return run


def test_size_and_licence_are_said_and_the_data_set_lies_where_training_looks(osf, call, capsys):
    call("wall_single", typed="y\n")
    said = capsys.readouterr().out
    assert "wall_single.zip: 0.0 MB, about 0.5 MB unpacked; licence CC-By Attribution 4.0; from https://osf.io/" in said
    assert Path("data/wall_single/states.pth").read_bytes() == b"states" * 99
    assert Path("data/wall_single/obses/episode_000.pth").read_bytes() == b"frames"
    assert sorted(each.name for each in Path("data").iterdir()) == [
        "wall_single", "wall_single.zip", "wall_single.zip.json"
    ]  # fmt: skip
    asked = len(osf.asked)
    call("wall_single")
    assert "data/wall_single is there already" in capsys.readouterr().out
    assert len(osf.asked) == asked


@pytest.mark.parametrize(("typed", "words"), [("\n", "nothing was fetched$"), (None, "give --yes to fetch it$")])
def test_nothing_is_fetched_unless_somebody_agrees(osf, call, typed, words):
    with pytest.raises(SystemExit, match=words):
        call("wall_single", typed=typed)
    assert not [path for path, _ in osf.asked if "49rnx" in path]


def test_a_broken_connection_goes_on_where_it_was(osf, call):
    osf.answers["/storage"].cuts = (100,)
    call("wall_single", "--yes")
    assert [span for path, span in osf.asked if path == "/storage"] == [None, "bytes=100-"]
    assert Path("data/wall_single/states.pth").is_file()


def test_a_file_with_another_checksum_than_the_listing_has_is_not_kept(osf, call):
    osf.answers["/storage"].content = CONTENT[:-1] + b"?"
    with pytest.raises(SystemExit, match=r"its SHA-256 is .* Or fetch it by hand: open https://osf\.io/bmw48/"):
        call("wall_single", "--yes")
    assert not [*Path("data").iterdir()]


def test_without_the_listing_what_was_known_before_is_used(osf, call, caplog, capsys):
    osf.page(f"/v2/nodes/bmw48/files/osfstorage/?{KEY}", "<title>Down</title>", 503)
    call("wall_single", "--yes")
    assert (
        "the server says 503 Service Unavailable (Down); going by the size and the checksum that were known"
        in caplog.text
    )
    assert "; licence CC-By Attribution 4.0; " in capsys.readouterr().out
    assert Path("data/wall_single/states.pth").is_file()


def test_a_project_that_states_no_licence_is_said_so(osf, call, capsys):
    osf.json(f"/v2/nodes/bmw48/?embed=license&{KEY}", {"data": {"embeds": {"license": {"errors": []}}}})
    call("wall_single", "--yes")
    assert "; licence not stated; " in capsys.readouterr().out


def test_a_disk_that_is_too_small_is_found_before_anything_comes(osf, call, monkeypatch):
    monkeypatch.setattr("utils.unpacking.free_bytes", lambda folder: 10)
    with pytest.raises(SystemExit, match=r"data needs .* of free disk space, and there are"):
        call("wall_single", "--yes")
    assert not [path for path, _ in osf.asked if "49rnx" in path]


def test_a_file_fetched_by_hand_needs_no_server(call, tmp_path, monkeypatch):
    (tmp_path / "wall_single.zip").write_bytes(CONTENT)
    monkeypatch.setenv("DATASET_DIR", str(tmp_path))
    call("wall_single")
    assert (tmp_path / "wall_single/obses/episode_000.pth").is_file()


def test_other_files_in_the_place_of_a_data_set_are_left_alone(osf, call):
    Path("data/wall_single").mkdir()
    Path("data/wall_single/mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match=r"data/wall_single is there without states\.pth"):
        call("wall_single", "--yes")
    assert osf.asked == []


def test_offline_is_one_line_with_the_other_way(osf, call, monkeypatch, capsys):
    monkeypatch.setenv("OSF_API", "http://osf.invalid/v2")
    monkeypatch.setenv("OSF_FILES", "http://osf.invalid/osf")
    with pytest.raises(SystemExit, match=r"machine connected to the internet\?\)\. Or fetch it by hand: .* put"):
        call("wall_single", "--yes")
    assert "; licence not known, as OSF does not answer; " in capsys.readouterr().out
