"""A start that fails leaves no folder."""

import pytest

from launch.run_folder import remove_beginning, take_run_folder
from utils.folder_lock import release


def fail(folder, *more):
    """Begin a run as Hydra and the record do, and end it with an error; ``more`` is what the work has written."""
    take_run_folder(folder)
    (folder / ".hydra").mkdir()
    for name in (".hydra/overrides.yaml", ".hydra/hydra.yaml", ".hydra/config.yaml", "train.log", "run.json", *more):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    remove_beginning(folder)
    release(folder)


def test_what_was_made_goes_with_its_empty_parents(tmp_path):
    (tmp_path / "there").mkdir()
    fail(tmp_path / "there" / "a" / "b" / "c")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_what_was_there_before_stays(tmp_path):
    (tmp_path / "empty").mkdir()
    fail(tmp_path / "empty")
    assert {path.name for path in (tmp_path / "empty").iterdir()} == {".hydra", "train.log", "run.json"}


@pytest.mark.parametrize("name", ["hydra.yaml", "checkpoints/model_latest.safetensors", "logs.json", ".hydra/mine"])
def test_a_run_that_has_begun_stays(tmp_path, name):
    folder = tmp_path / "a" / "b"
    fail(folder, name)
    assert (folder / name).exists() and (folder / "run.json").exists()


def test_parents_that_hold_something_else_stay(tmp_path):
    (tmp_path / "base").mkdir()
    fail(tmp_path / "base" / "run" / "1")
    (tmp_path / "base" / "latents").mkdir()
    fail(tmp_path / "base" / "run" / "1")
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["latents"]
