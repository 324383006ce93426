"""Teacher forcing over several imagined steps."""

import pytest
import torch

from tests.training.tiny import STATE, build
from training.validation import validation_losses


@pytest.fixture
def trainer(tmp_path):
    def make(*overrides):
        made = build(tmp_path / "run", *STATE, *overrides)
        with torch.no_grad():  # a fresh predictor predicts no change
            for parameter in made.model.predictor.parameters():
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
        return made

    return make


def losses_of(training):
    batch = training.train_data.__getitems__(range(4))
    return batch, training.method.losses(batch, training.train_step.latent(batch), 0)


@pytest.mark.parametrize("hist", [1, 2])
@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_every_step_of_every_window_counts(trainer, hist, discount):
    """Against one rollout at a time, by hand."""
    training = trainer(
        "predictor=residual", f"num_hist={hist}", "method.rollout_steps=3", f"method.rollout_discount={discount}", "N=4"
    )
    batch, found = losses_of(training)
    model = training.model
    latent = training.train_step.latent(batch)
    per_step = [[], []]
    for start in range(latent.num_frames - hist - 2):
        imagined = model.rollout(latent[:, start : start + hist], batch.actions[:, start : start + hist + 2])
        for ahead in (1, 2):
            at = start + hist + ahead
            visual = (imagined.visual[:, hist + ahead] - latent.visual[:, at]).square().flatten(1)
            proprio = (imagined.proprio[:, hist + ahead] - latent.proprio[:, at].detach()).square().flatten(1)
            per_step[ahead - 1].append(torch.cat([visual, proprio], 1).mean())  # one patch: each entry counts once
    windows = model.windows(latent, batch.actions)
    forced = model.prediction_loss(model.predict_tokens(model.tokens(windows.source, windows.actions)), windows.target)
    steps = [forced.total, *(torch.stack(each).mean() for each in per_step)]
    weights = [discount**k for k in range(3)]
    expected = sum(w * step for w, step in zip(weights, steps, strict=True)) / sum(weights)
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(found["rollout_loss"], steps[2].detach())
    assert not torch.isclose(steps[0], steps[2])


def test_one_step_is_teacher_forcing_exactly(trainer):
    _, found = losses_of(trainer("method.rollout_steps=1"))
    assert found.keys() == {"loss", "visual_loss", "proprio_loss"}


def test_training_on_imagined_steps_lowers_their_error(tmp_path):
    options = ("method.rollout_steps=4", "training.max_batches=40", "training.predictor_lr=1e-3")
    training = build(tmp_path / "run", *STATE, "N=5", *options)

    def error():
        return validation_losses(training.model, training.validation.batches(), training.train_step.latent)[
            "val_open_loop_visual"
        ]

    before = error()
    training.fit()
    assert error() < 0.8 * before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.rollout_steps=0"], "method.rollout_steps=0 must be a whole number, at least 1"),
        (["method.rollout_steps=6", "N=5"], "N=5: method=offline looks 6 steps ahead .*set N to at least 6"),
        (["method.rollout_discount=0.5"], "method.rollout_discount=0.5 has no effect with method.rollout_steps=1"),
        (
            ["method.rollout_steps=2", "method.rollout_discount=0"],
            "method.rollout_discount=0 must be a number, above 0, at most 1",
        ),
    ],
)
def test_wrong_settings_are_named(trainer, overrides, message):
    with pytest.raises(Exception, match=message):
        trainer(*overrides)
