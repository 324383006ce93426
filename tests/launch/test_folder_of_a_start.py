"""A run folder that cannot be made or written is one line, before anything else happens."""

import copy
import errno
import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from launch.conf import CONF
from launch.run_folder import TakeRunFolder
from utils.folder_lock import release
from utils.machine import check_writable


@pytest.fixture(scope="module")
def config():
    """A composed run, with Hydra's own settings."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", ["ckpt_path=x"], return_hydra_config=True)


@pytest.fixture
def refusal(config, capsys):
    """Start a run in a folder; returns what it is told, if it is refused."""

    def start(folder, key="run"):
        own = copy.deepcopy(config)
        OmegaConf.set_readonly(own.hydra, False)
        for setting, value in ((f"{key}.dir", str(folder)), ("job.name", "train")):
            OmegaConf.update(own.hydra, setting, value, force_add=True)
        begin = TakeRunFolder().on_run_start if key == "run" else TakeRunFolder().on_multirun_start
        try:
            begin(own)
        except SystemExit as stop:
            said = capsys.readouterr().err if stop.code == 1 else str(stop.code)
            assert said.startswith("error: ") and said.strip().count("\n") == 0 and f"hydra.{key}.dir" in said
            return said
        if key == "run":
            release(Path(folder))
        return None

    return start


@pytest.mark.parametrize("key", ["run", "sweep"])
def test_both_entries_look_at_the_folder_and_leave_nothing_there(refusal, tmp_path, key):
    assert refusal(tmp_path / "a" / "b", key) is None
    assert not list(tmp_path.iterdir())
    (tmp_path / "taken").touch()
    assert "is a file; name another folder" in refusal(tmp_path / "taken" / "b", key)


@pytest.mark.parametrize("folder", ["/proc/x", "/proc/self/y/z", "/dev/null/x", "a" * 300, "ok/" + "b" * 300])
def test_impossible_folders(refusal, tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    assert refusal(folder)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_disk_that_takes_no_folder(refusal, tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "mkdir", refuse)  # as root, permissions refuse nothing
    assert f"cannot be written: {os.strerror(code)}" in refusal(tmp_path / "run")
    with pytest.raises(ValueError, match=r"training\.latent_dir=.* cannot be written"):
        check_writable("training.latent_dir", tmp_path)


@pytest.mark.parametrize("name", [".hydra", "train.log"])
def test_what_stands_in_the_way_of_hydras_files(refusal, tmp_path, name):
    (tmp_path / name).touch() if name == ".hydra" else (tmp_path / name).mkdir()
    assert f"{tmp_path / name} is" in refusal(tmp_path)
