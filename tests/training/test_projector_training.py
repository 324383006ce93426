"""Training a projector: with every method, resumed, on kept latents, from a base that has none, and in planning."""

from __future__ import annotations

import logging

import pytest
import torch

from models.checkpoints.convert import convert
from models.checkpoints.native import read_checkpoint
from models.checkpoints.summary import summarise
from tests.training.resuming import assert_same_run, interrupt
from tests.training.tiny import BRIEF_PLANS, build, changed, run, weights, without_times

TINY = (
    "experiment=wall_straight",
    "has_decoder=false",
    "training.num_reconstruct_samples=0",
    "training.schedule=constant",
    "predictor.width=16",
    "predictor.depth=1",
    "predictor.mlp_dim=16",
)
NARROW = ("projector.hidden=8", "projector.emb_dim=4")
ONE_STEP = ("training.epochs=1", "training.max_batches=1")
TWO_EPOCHS = ("training.epochs=2", "training.max_batches=2", "training.save_every_x_batch=1")


@pytest.fixture(scope="module")
def straight(tmp_path_factory, wall_root):
    """A model with a projector after one step."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DATASET_DIR", str(wall_root))
        return run(tmp_path_factory.mktemp("straight") / "base", *TINY, *NARROW, *ONE_STEP).folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory, wall_root):
    """The same without."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DATASET_DIR", str(wall_root))
        none = ("projector=none", "regularizer=none", "model.train_projector=null")
        return run(tmp_path_factory.mktemp("plain") / "base", *TINY, *none, *ONE_STEP).folder


def tensors(folder):
    return read_checkpoint(folder).tensors


@pytest.mark.parametrize("method", ["offline", "offline_rollout", "online", "adversarial", "online_adversarial"])
def test_it_trains_with_every_method_and_the_regularizer_acts_on_what_it_gives(tmp_path, straight, method):
    brief = ["method.rollout_steps=2"] if method == "offline_rollout" else BRIEF_PLANS[method]
    further = ("model.train_projector=true", f"ckpt_path={straight}", "regularizer.variance_weight=0.5")
    trainer = build(tmp_path / "run", *TINY, *ONE_STEP, *brief, *further)
    seen, losses = [], trainer.train_step.regularizer.losses
    trainer.train_step.regularizer.losses = lambda features: seen.append(features) or losses(features)
    trainer.fit()
    trainer.close()
    assert seen[0].shape == (4, 6, 16, 4) and seen[0].requires_grad
    assert changed(tensors(straight), tensors(trainer.folder)) == {"projector", "predictor", "action_encoder"}
    line = without_times(trainer.folder / "logs.json")[0]
    expected = 0.1 * line["curvature_loss"] + 0.5 * line["variance_loss"]
    assert line["regularizer_loss"] == pytest.approx(expected, rel=1e-4)
    if trainer.method.replay is not None:
        [kept, *_] = trainer.method.replay.entries(None)
        assert kept.features.shape[2:] == (16, 32), "the buffer keeps what the encoder says, which does not change"


def test_a_trained_one_stays_as_it_is_unless_asked(tmp_path, straight, caplog):
    frozen = build(tmp_path / "frozen", *TINY, *ONE_STEP, "regularizer=none", f"ckpt_path={straight}")
    assert frozen.model.projector.emb_dim == 4, "its sizes are the checkpoint's"
    assert not frozen.settings.train_projector and not any(p.requires_grad for p in frozen.model.projector.parameters())
    message = r"regularizer=straighten has no effect on features that are not trained; set .*train_projector=true"
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "run", *TINY, f"ckpt_path={straight}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("projector=none",), r"projector=none was asked for, the checkpoint has models\..*ChannelProjector"),
        (("projector=global",), r"projector models\..*GlobalProjector was asked for, the checkpoint has"),
        (("projector.emb_dim=5",), r"projector.emb_dim=5 was asked for, the checkpoint has projector.emb_dim=4"),
    ],
)
def test_another_one_than_the_checkpoints_is_a_contradiction(tmp_path, straight, overrides, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "run", *TINY, *overrides, "regularizer=none", f"ckpt_path={straight}")


def test_without_a_projector_nothing_names_one(plain, straight):
    assert "\nprojector:" not in (plain / "hydra.yaml").read_text()
    assert not [name for name in tensors(plain) if name.startswith("projector")]
    assert "\nprojector:" in (straight / "hydra.yaml").read_text()


def test_a_base_without_one_gets_one_and_keeps_its_encoders(tmp_path, plain, caplog):
    with caplog.at_level(logging.INFO):
        trainer = build(tmp_path / "run", *TINY, *NARROW, *ONE_STEP, f"ckpt_path={plain}")
    assert "has no projector: models.networks.projector.ChannelProjector is put on its encoder" in caplog.text
    assert "START ANEW" in caplog.text
    before, after = tensors(plain), weights(trainer.model)
    for name, tensor in before.items():
        part = name.split(".")[0]
        same_shape = after[name].shape == tensor.shape
        assert (same_shape and torch.equal(after[name], tensor)) or (part == "predictor" and not same_shape), name
    assert before["predictor.embed.weight"].shape == (16, 52) and after["predictor.embed.weight"].shape == (16, 24)
    assert trainer.settings.train_projector
    trainer.fit()
    assert changed(after, tensors(trainer.folder)) == {"projector", "predictor", "action_encoder"}


def test_the_parts_behind_a_new_one_may_be_chosen_anew(tmp_path, plain):
    sizes = ("predictor.mlp_dim=24", "has_decoder=true", "model.train_decoder=true", "training.decoder_frames=3")
    trainer = build(tmp_path / "run", *TINY, *NARROW, *sizes, f"ckpt_path={plain}")
    assert trainer.model.predictor.vit.state_dict()["transformer.layers.0.1.net.1.weight"].shape == (24, 16)
    assert trainer.model.decoder is not None


def test_one_that_nothing_keeps_apart_is_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="training.assemble"):
        build(tmp_path / "straight", *TINY)
        assert not [record for record in caplog.records if record.name == "training.assemble"]
        build(tmp_path / "none", *TINY, "regularizer=none")
    assert "a projector trains with regularizer=none" in caplog.text


def test_a_new_one_that_is_not_trained_is_warned_of_and_one_that_is_not_there_refused(tmp_path, plain, caplog):
    none = (*TINY, "regularizer=none", f"ckpt_path={plain}")
    build(tmp_path / "run", *none, *NARROW, "model.train_projector=false")
    assert "the projector has random weights and model.train_projector=false: it will stay random" in caplog.text
    with pytest.raises(ValueError, match=r"train_projector=true, but the model has no projector"):
        build(tmp_path / "none", *none, "projector=none", "model.train_projector=true")


def test_a_new_one_excludes_the_training_of_a_proposal(tmp_path, plain):
    with pytest.raises(
        ValueError, match=r"train_projector=true excludes method=proposal.* a training of its own first"
    ):
        build(tmp_path / "run", *TINY, "regularizer=none", "method=proposal", f"ckpt_path={plain}")


@pytest.mark.parametrize("more", [("regularizer.pool=mlp",), ("method=adversarial", "regularizer.slowness_weight=1")])
def test_it_resumes_bit_for_bit(tmp_path, more):
    overrides = (*TINY, *NARROW, *TWO_EPOCHS, *more, f"ckpt_path={tmp_path / 'no_base'}")
    whole = run(tmp_path / "whole", *overrides)
    head = whole.train_step.regularizer.state_dict()
    assert bool(head) == ("regularizer.pool=mlp" in more)
    assert not [name for name in tensors(whole.folder) if "mlp.0" in name], "no part of the model"
    folder = tmp_path / "cut"
    assert interrupt(build(folder, *overrides), 3)
    torch.manual_seed(3)
    again = run(folder, *overrides)
    assert_same_run(folder, whole.folder)
    assert all(torch.equal(head[name], tensor) for name, tensor in again.train_step.regularizer.state_dict().items())


def test_the_network_of_a_loss_is_trained(tmp_path):
    trainer = build(tmp_path / "run", *TINY, *NARROW, *ONE_STEP, "regularizer.pool=mlp")
    mlp = trainer.train_step.regularizer.mlp
    assert [layer.out_features for layer in mlp if isinstance(layer, torch.nn.Linear)] == [512, 512, 128]
    before = {name: tensor.clone() for name, tensor in mlp.state_dict().items()}
    trainer.fit()
    assert all(not torch.equal(before[name], tensor) for name, tensor in mlp.state_dict().items() if "weight" in name)


def test_kept_latents_are_the_encoders_and_give_the_same_training(tmp_path, straight):
    lines = []
    for cache in ("none", "memory", "disk"):
        where = f"ckpt_path={tmp_path / 'base'}"
        trainer = run(tmp_path / cache, *TINY, *NARROW, *ONE_STEP, f"training.latent_cache={cache}", where)
        lines.append(without_times(trainer.folder / "logs.json"))
    trainer.epoch = trainer.position = 0
    assert next(trainer.batches()).latents.shape == (4, 6, 16, 32)
    for other in lines[1:]:
        for line, wanted in zip(other, lines[0], strict=True):
            assert line == pytest.approx(wanted, rel=1e-4)


def test_an_adversarial_perturbation_has_the_shape_of_what_is_projected(tmp_path, straight):
    trainer = build(
        tmp_path / "run", *TINY, *ONE_STEP, "regularizer=none", "method=adversarial", f"ckpt_path={straight}"
    )
    seen, perturbed = [], trainer.method._perturbed
    trainer.method._perturbed = lambda tokens, actions, deltas: (
        seen.append([delta.shape for delta in deltas]) or perturbed(tokens, actions, deltas)
    )
    trainer.fit()
    windows = 4 * 5
    assert seen[0] == [(windows, 1, 16, 4), (windows, 1, 16, 10), (windows, 1, 16, 10)]


def test_validation_tells_how_the_latents_lie(straight, plain):
    names = {"val_curvature", "val_frame_curvature", "val_step_correlation", "val_feature_std", "val_feature_rank"}
    assert names <= without_times(straight / "logs.json")[-1].keys()
    assert not names & without_times(plain / "logs.json")[-1].keys()


def test_a_checkpoint_with_one_is_inspected_converted_and_kept_from_the_earlier_release(tmp_path, straight):
    summary = summarise(straight / "checkpoints" / "model_latest.safetensors")
    assert summary.parts["projector"].count() == (9 * 32 + 1 + 2) * 8 + (9 * 8 + 1 + 2) * 4
    path = straight / "checkpoints" / "model_latest.safetensors"
    convert(path, tmp_path / "copy")
    assert read_checkpoint(tmp_path / "copy").optional_parts == ["projector"]
    with pytest.raises(ValueError, match=r"has a projector, and DINO-WM knows none"):
        convert(path, tmp_path / "old.pth", "dino-wm", like=path)
