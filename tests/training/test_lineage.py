"""What a run takes over from the model it starts from, and what it needs to go on."""

import shutil

import pytest
import torch

from launch.command_line import protect_record
from launch.resume import expand_resume
from models.checkpoints.native import read_checkpoint
from tests.training.tiny import build, run


def test_a_descendant_keeps_the_encoder_that_its_base_was_trained_with(tmp_path, monkeypatch):
    """A frozen DINOv2 stays out of checkpoints, but one that was trained must not get lost on the way."""
    monkeypatch.setattr("models.networks.small_encoder.SmallEncoder.saved_with_model", False)
    base = run(tmp_path / "base", "training.epochs=1")
    assert not any(name.startswith("encoder.") for name in read_checkpoint(base.folder).tensors)

    monkeypatch.setattr("models.networks.small_encoder.SmallEncoder.saved_with_model", True)
    carrying = run(tmp_path / "carrying", "training.epochs=1")
    monkeypatch.setattr("models.networks.small_encoder.SmallEncoder.saved_with_model", False)
    descendant = run(tmp_path / "descendant", "training.epochs=1", f"ckpt_path={carrying.folder}")
    found = read_checkpoint(descendant.folder).tensors
    expected = {k: v for k, v in read_checkpoint(carrying.folder).tensors.items() if k.startswith("encoder.")}
    assert expected
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)


def test_a_run_is_not_continued_on_another_base(tmp_path):
    base = run(tmp_path / "base", "training.epochs=1")
    run(tmp_path / "run", "training.epochs=1", f"ckpt_path={base.folder}")
    build(tmp_path / "run", "training.epochs=1", f"ckpt_path={base.folder}")  # the same base: continues

    other = run(tmp_path / "other", "training.epochs=1", "training.seed=5")
    with pytest.raises(ValueError, match=r"was started from .*base.*now ckpt_path leads to .*other"):
        build(tmp_path / "run", "training.epochs=1", f"ckpt_path={other.folder}")
    shutil.rmtree(base.folder)
    with pytest.raises(ValueError, match=r"was started from .*base.*|settings"):
        build(tmp_path / "run", "training.epochs=1", f"ckpt_path={base.folder}")


def test_a_refused_attempt_does_not_become_what_resume_repeats(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- method=offline\n")
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra:\n  job:\n    config_name: train\n")
    attempt = [f"hydra.run.dir={tmp_path}", "method=online"]
    assert protect_record(attempt, "state.pt") == attempt, "nothing to resume yet: a new run may be recorded"
    (tmp_path / "state.pt").touch()
    assert protect_record(attempt, "state.pt")[-1] == "hydra.output_subdir=null"
    resumed = expand_resume([f"resume={tmp_path}"])
    assert "method=offline" in resumed and protect_record(resumed, "state.pt")[-1] == "hydra.output_subdir=null"
