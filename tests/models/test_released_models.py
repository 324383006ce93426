"""``python -m models.fetch`` by name, from stand-ins for Google Drive and OSF."""

import io
import sys
from pathlib import Path

import pytest
import torch

from models import fetch
from models.released import FINETUNED, NAMES
from tests.public_server import Answer, PublicServer, zipped

NUMBER = FINETUNED["wall.online"]
FILE = f"/download?id={NUMBER}&export=download&confirm=t"
MODEL = {"hydra.yaml": b"num_hist: 1\n", "checkpoints/model_latest.pth": b"weights"}
CONTENT = zipped({f"runs/online/{name}": text for name, text in MODEL.items()} | {"runs/online/notes.txt": b""})
FORM = """<title>Google Drive - Virus scan warning</title><form id="download-form" action="/large" method="get">
<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="x"><input type="hidden"
name="uuid" value="1-2"></form><form><input name="other" value="1"></form>"""


@pytest.fixture
def call(monkeypatch):
    """Runs the command, with nobody to be asked."""

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["fetch", *arguments])
        fetch.main()

    return run


def model_in(folder: str) -> dict[str, bytes]:
    place = Path(folder)
    return {str(each.relative_to(place)): each.read_bytes() for each in place.rglob("*") if each.is_file()}


def test_a_finetuned_model_lies_where_it_is_looked_for(public, call, capsys):
    public.answers[FILE] = Answer(CONTENT)
    call("wall.online", "--yes")
    assert model_in("outputs/wall_single/online") == MODEL
    said = capsys.readouterr().out
    assert f"MB; licence not stated; from https://drive.google.com/file/d/{NUMBER}/view" in said
    assert "python -m models.checkpoint inspect outputs/wall_single/online" in said
    asked = len(public.asked)
    call("wall.online")
    assert len(public.asked) == asked


def test_nothing_is_fetched_without_being_asked_for(public, call, monkeypatch):
    public.answers[FILE] = Answer(CONTENT)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit, match="nothing was fetched: give --yes"):
        call("wall.online")
    assert not [each for each in Path("outputs").rglob("*") if each.is_file()]


def test_the_form_before_a_large_file_is_sent_and_a_break_goes_on(public, call):
    public.page(FILE, FORM)
    public.answers["/large?id=x&uuid=1-2"] = Answer(CONTENT, cuts=(len(CONTENT), 50))
    call("wall.online", "--yes")
    assert model_in("outputs/wall_single/online") == MODEL
    assert public.asked[-1] == ("/large?id=x&uuid=1-2", "bytes=50-")


@pytest.mark.parametrize("code", [200, 403])
def test_a_refusal_for_too_many_visitors_says_the_other_way(public, call, code):
    reason = '<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>'
    public.page(FILE, f"<title>Google Drive - Quota exceeded</title>{reason}", code)
    with pytest.raises(SystemExit) as stopped:
        call("wall.online", "--yes")
    message = str(stopped.value)
    assert "(Too many users have viewed or downloaded this file recently.)" in message
    assert (
        f"open https://drive.google.com/file/d/{NUMBER}/view, put the file at outputs/downloads/wall.online.zip"
        in message
    )
    assert "\n" not in message
    Path("outputs/downloads").mkdir(parents=True, exist_ok=True)
    Path("outputs/downloads/wall.online.zip").write_bytes(CONTENT)
    call("wall.online")
    assert model_in("outputs/wall_single/online") == MODEL


def test_a_length_that_is_never_reached_keeps_what_has_come(public, call):
    public.answers[FILE] = Answer(CONTENT, lies=9)
    with pytest.raises(
        SystemExit, match=f"ended after {len(CONTENT)} of {len(CONTENT) + 9} bytes; {len(CONTENT)} bytes are"
    ):
        call("wall.online", "--yes")
    assert not Path("outputs/wall_single/online").exists()


def test_weights_alone_are_known_by_what_is_in_them(public, call, caplog):
    weights = io.BytesIO()
    torch.save({"epoch": 1}, weights)
    public.answers[FILE] = Answer(weights.getvalue())
    call("wall.online", "--yes")
    assert model_in("outputs/wall_single/online") == {"checkpoints/model_latest.pth": weights.getvalue()}
    assert "holds weights alone: copy the hydra.yaml of the base model" in caplog.text


def test_an_archive_of_something_else_is_refused(public, call):
    public.answers[FILE] = Answer(zipped({"photo.jpg": b""}))
    with pytest.raises(
        SystemExit, match=r"wall\.online\.zip cannot be unpacked: it holds something else \(photo\.jpg\)"
    ):
        call("wall.online", "--yes")


def test_of_the_archive_of_all_base_models_one_is_placed(public, call, capsys, monkeypatch):
    files = {f"outputs/{env}/{name}": text for env in ("wall_single", "pusht") for name, text in MODEL.items()}
    content = zipped(files)
    listing = {"data": [{"attributes": {"kind": "file", "name": "outputs.zip", "size": len(content)}}]}
    public.json("/v2/nodes/bmw48/files/osfstorage/", listing)
    public.json("/v2/nodes/bmw48/", {})
    public.answers["/osf/xvzs4/"] = Answer(content)
    call("wall.base", "--yes")
    assert model_in("outputs/wall_single") == MODEL
    assert "outputs.zip: 0.0 MB; licence not stated; from https://osf.io/bmw48/" in capsys.readouterr().out
    call("pusht.base", "here")
    assert model_in("here") == MODEL
    with pytest.raises(SystemExit, match="several folders of it could be point_maze"):
        call("point_maze.base")


def test_an_unknown_name_lists_the_known_ones(call):
    with pytest.raises(SystemExit, match=f"wall is neither hf://owner/name nor one of {', '.join(NAMES)}"):
        call("wall")


def test_a_page_after_the_other_ends(public: PublicServer, call):
    public.page(FILE, FORM)
    public.page("/large", FORM)
    with pytest.raises(SystemExit, match="one page after the other"):
        call("wall.online", "--yes")
