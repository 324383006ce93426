"""``python -m doctor`` finds what is really broken, and says what to do."""

import logging
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from doctor import __main__ as doctor
from doctor import installation as doctor_checks
from doctor.installation import Missing
from envs.wall.expert import WallRandomWalk
from tests.builders import wall_collection, wall_model_directory


@pytest.fixture
def ask(monkeypatch, capsys):
    """Run the doctor with arguments; returns (exit code, lines by title)."""
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def asked(*arguments):
        root.handlers.clear()
        monkeypatch.setattr(sys, "argv", ["doctor", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            doctor.main()
        lines = capsys.readouterr().out.splitlines()
        return stop.value.code, {line[6:20].strip(): line for line in lines}

    yield asked
    root.handlers[:], root.level = before


def test_a_healthy_installation(ask, wall_root, tmp_path):
    model = wall_model_directory(tmp_path / "model")
    code, lines = ask("--data", wall_root, "--checkpoint", model)
    assert code == 0, lines
    for title in ("Python", "packages", "torch", "videos", "wall images", "pusht images", "wall data", "checkpoint"):
        assert lines[title].startswith("ok "), lines[title]
    assert "12 trajectories, 480 frames of 65 pixels, all read" in lines["wall data"]
    assert all(" -> " in line for line in lines.values() if line.startswith(("note", "FAIL")))


def test_a_broken_data_set_a_missing_checkpoint_and_wrong_weights(ask, wall_root, tmp_path, monkeypatch):
    copy = tmp_path / "wall_single"
    shutil.copytree(wall_root / "wall_single", copy)
    torch.save(torch.zeros(3), tmp_path / "weights.pth")
    path = copy / "obses" / "episode_007.pth"
    path.write_bytes(b"\0" * path.stat().st_size)
    monkeypatch.setattr(doctor_checks, "opengl", lambda back_end: "")  # slow, and not the point
    monkeypatch.setattr(doctor_checks, "any_opengl", lambda: "")
    code, lines = ask("--data", copy, "--checkpoint", tmp_path, "--weights", tmp_path / "weights.pth")
    assert code == 1
    assert lines["wall data"].startswith("FAIL") and "1 of 12 trajectories cannot be read" in lines["wall data"]
    assert "episode_007.pth" in lines["wall data"]
    assert lines["checkpoint"].startswith("FAIL") and lines["DINOv2"].startswith("FAIL")
    assert any(line.startswith("3 of ") for line in lines.values())


def test_what_is_not_known_is_said_and_not_checked(ask, wall_root, tmp_path, monkeypatch):
    for name in ("opengl", "any_opengl", "videos", "packages"):
        monkeypatch.setattr(doctor_checks, name, lambda *_: "")
    data, own = tmp_path / "data", tmp_path / "mine"
    shutil.copytree(wall_root, data)
    (data / "rooms").mkdir()
    wall_collection(data / "Pendulum-v1", WallRandomWalk(), n_rollout=2, num_steps=3).run(num_workers=1)
    torch.save(torch.rand(2, 3, 2), data / "Pendulum-v1" / "proprio.pth")
    torch.save(torch.tensor([3, 3]), data / "Pendulum-v1" / "seq_lengths.pth")
    model = wall_model_directory(tmp_path / "model")
    config = OmegaConf.load(model / "hydra.yaml")
    config.encoder._target_ = "rooms.Encoder"
    OmegaConf.save(config, model / "hydra.yaml")
    for group in ("env", "dataset"):
        (own / group).mkdir(parents=True)
    (own / "env" / "broken.yaml").write_text("simulator: {_target_: absent_rooms.Rooms}")
    (own / "env" / "small.yaml").write_text("simulator: {_target_: envs.wall.vector_env.WallVectorEnv}")
    (own / "dataset" / "walks.yaml").write_text(
        f"{{_target_: datasets.formats.wall.WallTrajectories, data_path: {data / 'wall_single'}}}"
    )
    (own / "dataset" / "more.yaml").write_text(
        f"# @package env.dataset\ndefaults: [wall]\ndata_path: {data / 'wall_single'}\ntrusted_targets: [mine.Reader]"
    )
    code, lines = ask("--data", data, "--checkpoint", model, "--config-dir", own)
    assert code == 0, [line for line in lines.values() if line.startswith("FAIL")]
    assert "not checked, as no format here is known by such a name: rooms" in lines["data sets"]
    assert "2 trajectories, 6 frames of 65 pixels, all read" in lines["Pendulum-v1 da"]
    assert "not checked, as they are none of this project: encoder rooms.Encoder" in lines["checkpoint"]
    assert lines["env=broken"].startswith("note") and "absent_rooms" in lines["env=broken"]
    assert lines["dataset=more"].startswith("ok") and "12 trajectories" in lines["dataset=more"]
    assert lines["env=small"].startswith("ok") and "12 trajectories of 65 pixels" in lines["dataset=walks"]


def test_packages_that_are_missing_or_old_are_named(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["torch>=99", "no-such-package>=1", "numpy"]')
    monkeypatch.setattr(doctor_checks, "REPOSITORY", tmp_path)
    with pytest.raises(Missing, match=r"torch .* is not >=99; no-such-package is missing") as caught:
        doctor_checks.packages()
    assert caught.value.remedy == "make setup" and caught.value.required


def test_little_room_is_noted(monkeypatch, tmp_path):
    usage = SimpleNamespace(total=64e6, free=60e6)
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(Missing, match=r"60\.0 MB free") as caught:
        doctor_checks.disk(tmp_path)
    assert not caught.value.required
    with pytest.raises(Missing) as caught:
        doctor_checks.shared_memory()
    assert "--shm-size" in caught.value.remedy


def test_a_library_that_breaks_in_its_own_way_is_one_line(caplog):
    def broken():
        raise RuntimeError("two\nlines")

    with caplog.at_level(logging.INFO, "doctor"):
        assert doctor.examine("videos", broken) == doctor.FAILED
    assert caplog.messages == ["FAIL  videos         RuntimeError: two lines -> install it anew: make setup"]
