"""Nothing is written, and nothing removed, through links."""

import os

import pytest

from utils.files import atomic_path, own_file, remove_unfinished, temporary_path, write_text
from utils.folder_lock import LOCK, hold, holding, release
from utils.links import LinkError, check_contents


@pytest.fixture
def outside(tmp_path):
    """A folder with something of somebody's."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("precious", ".notes.tmp", ".tmpAb12Cd", "any.tmp"):
        (folder / name).write_text("somebody's")
    yield folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        ("precious", ".notes.tmp", ".tmpAb12Cd", "any.tmp"), "somebody's"
    )


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["logs.json", "train.log", ".hydra", "checkpoints/model_latest.safetensors", "wandb"])
def test_a_link_in_a_run_folder_is_named(run, outside, name):
    target = outside if name in (".hydra", "wandb") else outside / "precious"
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).symlink_to(target)
    with pytest.raises(LinkError, match=rf"run/{name} is a link to '.*', and .*: remove it \(rm .*{name}\), or choose"):
        check_contents(run)


def test_links_that_are_not_in_our_way_stay(run, outside, tmp_path):
    """A folder that is a link itself, links to folders of other names, and those that Weights & Biases makes."""
    (run / "wandb" / "run-1").mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to("run-1")
    (run / "best").symlink_to(outside)
    (tmp_path / "named").symlink_to(run)
    check_contents(tmp_path / "named")
    check_contents(tmp_path / "nowhere")
    with pytest.raises(LinkError, match="best is a link"):
        check_contents(run, strict=True)
    with holding(tmp_path / "named"):
        write_text(tmp_path / "named" / "open_loop" / "a", "b")
    assert (run / "open_loop" / "a").read_text() == "b"


def test_links_that_lead_in_a_circle_are_named(run, tmp_path):
    (run / "wandb").mkdir()
    (run / "wandb" / "a").symlink_to("a")
    (tmp_path / "circle").symlink_to("circle")
    check_contents(run)  # it leads nowhere, least of all outside
    with pytest.raises(OSError, match="circle"):
        hold(tmp_path / "circle")


def test_pipes_are_named(run):
    os.mkfifo(run / "logs.json")
    with pytest.raises(LinkError, match="is neither a file nor a folder"):
        check_contents(run)
    with pytest.raises(LinkError, match="should be a file"):
        own_file(run / "logs.json")


def test_a_held_folder_is_not_left_through_links_that_come_later(run, outside):
    with holding(run):
        (run / "deep").mkdir()
        (run / "deep" / "open_loop").symlink_to(outside)
        for path in (run / "deep" / "open_loop" / "precious", run / "deep" / "open_loop" / "new"):
            with pytest.raises(LinkError, match="open_loop is a link"), atomic_path(path):
                pytest.fail("it began to write")
        with pytest.raises(LinkError, match="open_loop is a link"):
            remove_unfinished(run / "deep" / "open_loop")


@pytest.mark.parametrize("write", [own_file, lambda path: write_text(path, "x")])
def test_a_file_that_is_a_link_is_neither_replaced_nor_followed(run, outside, write):
    (run / "results.json").symlink_to(outside / "precious")
    with pytest.raises(LinkError, match=r"results\.json is a link"):
        write(run / "results.json")
    assert (run / "results.json").is_symlink()


def test_a_lock_is_not_written_through_links(run, outside):
    (run / LOCK).symlink_to(outside / "precious")
    with pytest.raises(LinkError, match="is a link"):
        hold(run)
    (run / LOCK).unlink()
    (run / LOCK).hardlink_to(outside / "precious")
    with pytest.raises(LinkError, match="remove it"):
        hold(run)


def test_another_name_of_a_log_keeps_what_it_has(run, outside):
    (run / "logs.json").hardlink_to(outside / "precious")
    own_file(run / "logs.json")
    with (run / "logs.json").open("a") as file:
        file.write(" and ours")
    assert (run / "logs.json").read_text() == "somebody's and ours"


def test_only_our_own_unfinished_files_are_removed(run, outside):
    others = [".a.tmp", ".tmp123456", "b.tmp", ".c.12.world-models-tmp", "d.1.01234567.world-models-tmp"]
    for name in others:
        (run / name).write_text("somebody's")
    temporary_path(run / "results.json").write_text("half")
    folder = temporary_path(run / "model.safetensors")
    folder.mkdir()
    (folder / ".tmpAb12Cd").write_text("half")
    temporary_path(run / "x").symlink_to(outside)
    hold(run)
    release(run)
    remove_unfinished(run)
    assert sorted(path.name for path in run.iterdir()) == sorted(others)
