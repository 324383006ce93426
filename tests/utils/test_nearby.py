"""Paths one folder off or misspelt: errors say what is there and what was probably meant."""

from pathlib import Path

import pytest

from datasets.files import DatasetError, dataset_root
from datasets.formats.wall import WallTrajectories
from models.checkpoints.native import CheckpointError, read_checkpoint, trained_weights
from utils.nearby import describe, hint


@pytest.fixture
def outputs(tmp_path):
    """``outputs`` with a model directory and some other folders in it."""
    (tmp_path / "outputs" / "wall_single" / "checkpoints").mkdir(parents=True)
    (tmp_path / "outputs" / "wall_single" / "checkpoints" / "model_latest.pth").touch()
    (tmp_path / "outputs" / "empty").mkdir()
    return tmp_path / "outputs"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "wall_single/checkpoints",
        "wall_single/checkpoints/model_latest.pth",
        "wall_singel",
        "wall_single\r",
        "../output/wall_single",
        "../wall_single",
    ],
)
def test_a_model_directory_one_step_off_is_found(outputs, wrong):
    meant = outputs / "wall_single"
    found = hint(outputs / wrong, trained_weights)
    assert f"did you mean {meant}? it holds model_latest.pth" in found.replace("/../outputs", "")
    with pytest.raises(CheckpointError, match=r"ckpt_path=.*did you mean .*wall_single\? it holds model_latest\.pth"):
        read_checkpoint(outputs / wrong)


def test_a_misspelt_folder_that_its_own_run_has_made_is_still_misspelt(outputs):
    (outputs / "wall_singel" / "online" / "date").mkdir(parents=True)
    found = hint(outputs / "wall_singel", trained_weights)
    assert found == f"there is online; did you mean {outputs / 'wall_single'}? it holds model_latest.pth"


def test_where_nothing_is_near_it_says_what_is_there(outputs):
    assert hint(outputs / "empty", lambda _: None) == "that folder is empty"
    assert describe(outputs) == "there is empty, wall_single"
    assert describe(outputs / "nothing") == "there is no such folder"
    for number in range(9):
        (outputs / "empty" / f"{number}").touch()
    assert describe(outputs / "empty") == "there is 0, 1, 2, 3, 4, 5 and 3 more"


@pytest.mark.parametrize("wrong", ["", "deep/data", "deep/data/wall_single/obses", "deep/dat", "deep/data/wall_singel"])
def test_a_data_folder_one_step_off_is_found(tmp_path, monkeypatch, wrong):
    data = tmp_path / "deep" / "data" / "wall_single"
    (data / "obses").mkdir(parents=True)
    (data / "states.pth").touch()
    if wrong in ("", "deep/dat"):
        monkeypatch.setenv("DATASET_DIR", str(tmp_path / "deep" / Path(wrong).name))
        with pytest.raises(DatasetError, match=r"did you mean \S*data\S*\? it holds"):
            WallTrajectories()
    else:
        with pytest.raises(DatasetError, match=rf"did you mean {data}\? it holds states\.pth"):
            WallTrajectories(tmp_path / wrong)


def test_the_data_folder_in_the_place_of_its_parent(tmp_path, monkeypatch):
    (tmp_path / "wall_single").mkdir()
    (tmp_path / "wall_single" / "states.pth").touch()
    monkeypatch.setenv("DATASET_DIR", str(tmp_path / "wall_single"))
    assert dataset_root() == tmp_path / "wall_single"
    with pytest.raises(DatasetError, match=rf"did you mean {tmp_path}/wall_single\? it holds states\.pth"):
        WallTrajectories()
