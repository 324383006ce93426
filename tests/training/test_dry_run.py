"""``train.py ... dry_run=true`` checks everything, measures, says what is needed, and leaves nothing behind."""

import logging
import re
import shutil

import pytest
import torch
from hydra.errors import InstantiationException

from datasets.formats.wall import WallTrajectories
from launch.command_line import overridden_keys, protect_record
from models.checkpoints.native import read_checkpoint
from tests.training.tiny import BRIEF_PLANS, SMALL, STATE, run, train_config
from training import dry_run as module
from training.dry_run import dry_run


@pytest.fixture
def rehearse(tmp_path, caplog, monkeypatch):
    """Dry run of ``SMALL`` or ``STATE`` and overrides; returns what was said, by the first word."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))

    def rehearsed(*overrides, run_dir=tmp_path / "outputs" / "run"):
        given = list(overrides) if "experiment=wall_state" in overrides else [*SMALL, *overrides]
        caplog.clear()
        before = files(tmp_path)
        config = train_config(*given, run_dir=str(run_dir), ckpt_path=str(tmp_path / "no_base"), from_scratch=True)
        try:
            with caplog.at_level(logging.INFO, "training.dry_run"):
                dry_run(config, overridden_keys(given), torch.device("cpu"))
        finally:
            assert files(tmp_path) == before
        said = [record.message for record in caplog.records if record.name == "training.dry_run"]
        return {line.split()[0]: line for line in said}

    return rehearsed


def files(folder):
    """But for the empty folder that torch.compile makes where temporary files go."""
    return sorted(path for path in folder.rglob("*") if not path.name.startswith("torchinductor"))


def megabytes(text):
    return float(re.search(r"([\d.]+) MB", text)[1])


def test_what_it_says_is_what_a_run_then_takes(rehearse, tmp_path):
    overrides = (*STATE, *BRIEF_PLANS["online"], "training.num_reconstruct_samples=0", "training.epochs=3")
    said = rehearse(*overrides)
    assert {"run", "model", "data", "samples", "steps", "time", "disk", "RAM"} == set(said)
    assert "12 trajectories" in said["data"] and "5 of 4 samples an epoch, 15 in all" in said["steps"]
    assert re.search(r"a step: .* an epoch, .* in all", said["time"])
    finished = run(tmp_path / "real", *overrides)
    replay = sum(path.stat().st_size for path in (tmp_path / "real" / "replay").iterdir()) / 1e6
    checkpoints = sum(path.stat().st_size for path in (tmp_path / "real" / "checkpoints").iterdir()) / 1e6
    assert finished.step == 15
    assert megabytes(said["disk"].split("checkpoints,")[1]) == pytest.approx(replay, rel=0.3, abs=0.06)
    assert checkpoints <= megabytes(said["disk"]) <= 2 * checkpoints


def test_a_latent_cache_is_measured_and_not_made(rehearse):
    said = rehearse("training.latent_cache=disk", "training.latent_dtype=float16")
    assert "frames of" in said["latents"] and "float16" in said["latents"]
    assert "of encoding left out" in said["time"]
    with pytest.raises(ValueError, match=r"training\.latent_cache must be one of"):
        rehearse("training.latent_cache=tape")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.batch_size=0"], r"training\.batch_size=0 must be a whole number, at least 1"),
        (["env.dataset.data_path=/no/where"], r"/no/where"),
        (["env.num_workers=0", "training.latent_dir=latents"], r"training\.latent_dir has no effect"),
    ],
)
def test_mistakes_are_found(rehearse, overrides, message):
    with pytest.raises((ValueError, InstantiationException), match=message):
        rehearse(*overrides)


def test_folders_that_cannot_be_made(rehearse, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=rf"hydra\.run\.dir={tmp_path}/file/run cannot be made: .* is a file"):
        rehearse(*STATE, run_dir=tmp_path / "file" / "run")


def test_too_little_room_is_one_line_that_says_where(rehearse, monkeypatch):
    monkeypatch.setattr(module, "free_bytes", lambda folder: 1000)
    with pytest.raises(ValueError, match=r"^there is not enough room: .* needed in .*run, 0\.0 MB free") as caught:
        rehearse(*STATE)
    assert "\n" not in str(caught.value)


def test_a_run_that_waits_to_be_continued_is_seen_and_left_alone(rehearse, tmp_path):
    folder = tmp_path / "outputs" / "run"
    run(folder, *STATE, f"ckpt_path={tmp_path / 'no_base'}")
    said = rehearse(*STATE)
    assert "would be continued" in said["resume"]
    with pytest.raises(ValueError, match="holds a run with other settings"):
        rehearse(*STATE, "training.batch_size=3")
    assert read_checkpoint(folder).about["step"] == 10
    shutil.rmtree(folder)


def test_hydra_makes_no_folder_for_it():
    argv = protect_record(["env=wall", "hydra.run.dir='a b'", "dry_run=true"], "state")
    assert argv[:3] == ["env=wall", "dry_run=true", "run_dir='a b'"]
    assert {"hydra.run.dir=.", "hydra.output_subdir=null"} <= set(argv)
    assert protect_record(["dry_run=true", "dry_run=false"], "state") == ["dry_run=true", "dry_run=false"]
    with pytest.raises(SystemExit, match="leave -m out"):
        protect_record(["-m", "dry_run=true"], "state")


def test_data_without_one_folder_are_not_measured(rehearse, monkeypatch):
    made = WallTrajectories.__init__

    def without(self, *args, **options):
        made(self, *args, **options)
        del self.data_path

    monkeypatch.setattr(WallTrajectories, "__init__", without)
    assert "12 trajectories, no data_path, so their size is not measured" in rehearse(*STATE)["data"]
