"""The training loop: what it changes, what it writes, when it stops."""

import json
import logging
import math
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from models.checkpoints.loading import load_weights
from models.checkpoints.native import read_checkpoint
from models.latent import Latent
from tests.training.tiny import STATE, build, changed, header, run, weights, without_times
from training.optimizers import LearningRates, Optimizers, constant, one_cycle
from training.step_metrics import NonFiniteLossError, StepNumbers
from training.validation import open_loop_errors, validation_losses
from utils.pictures import enlarge, to_uint8

DINO = ("encoder=dino", "encoder.weights=random", "+encoder.embed_dim=24", "+encoder.depth=1", "+encoder.num_heads=2")
"""A transformer with weights in the place of the small encoder: 4 x 4 patches of a 65-pixel image."""


@pytest.fixture
def tiny(tmp_path):
    return lambda *overrides: build(tmp_path / "run", *overrides)


def learning_rates(trainer):
    groups = {name: optimizer.param_groups for name, optimizer in trainer.train_step.optimizers._optimizers.items()}
    assert all(len(group) == 1 for group in groups.values())
    return {name: group[0]["lr"] for name, group in groups.items()}


def visited(trainer):
    """Train without computing anything; (trajectory, start) of the samples of each epoch."""
    epochs = [[] for _ in range(trainer.settings.epochs)]

    def noting(trainer, batch):
        epochs[trainer.epoch] += list(zip(batch.trajectory.tolist(), batch.start.tolist(), strict=True))

    trainer.on_step.append(noting)
    numbers, regularizer = StepNumbers({"loss": 0.0}, torch.zeros(())), trainer.train_step.regularizer
    trainer.train_step = Mock(return_value=numbers, regularizer=regularizer)
    trainer.fit()
    return epochs


def test_samples_come_in_another_order_each_epoch_and_again_in_the_same_with_the_same_seed(tmp_path):
    one, again, other = (
        visited(build(tmp_path / str(i), *STATE, "training.max_batches=null", f"training.seed={seed}"))
        for i, seed in enumerate((5, 5, 6))
    )
    assert one == again
    assert one[0] != one[1] and one[0] != other[0] and one[1] != other[0]
    for epoch in one:
        assert len(set(epoch)) == len(epoch) == 88  # 8 trajectories of 11 samples, each once
    assert set(one[0]) == set(one[1])


def test_a_frozen_encoder_stays_in_eval_mode_and_as_it_is(tiny):
    training = tiny(*DINO)
    before, modes, original = weights(training.model), [], training.method.loss

    def noting(windows):
        model = training.model
        modes.append((model.training, model.predictor.training, any(m.training for m in model.encoder.modules())))
        return original(windows)

    training.method.loss = noting
    training.fit()
    assert modes == [(True, True, False)] * 10
    assert changed(before, weights(training.model)) == {"predictor", "action_encoder", "decoder"}
    assert not any(p.requires_grad for p in training.model.encoder.parameters())
    stored = read_checkpoint(training.folder).tensors
    assert not any(name.startswith("encoder.") for name in stored)  # its own file brings it back


def test_an_encoder_in_training_changes_and_is_saved(tiny):
    training = tiny(*DINO, "model.train_encoder=true", "training.encoder_lr=1e-3", "training.epochs=1")
    before, modes, original = weights(training.model), [], training.method.loss

    def noting(windows):
        modes.append(training.model.encoder.training)
        return original(windows)

    training.method.loss = noting
    training.fit()
    assert modes == [True] * 5
    assert changed(before, weights(training.model)) == {"encoder", "predictor", "action_encoder", "decoder"}
    stored = read_checkpoint(training.folder).tensors
    for name, tensor in training.model.encoder.state_dict().items():
        assert torch.equal(stored[f"encoder.{name}"], tensor)


@pytest.mark.parametrize("options", [(), (*DINO, "model.train_encoder=true", "training.epochs=1")])
def test_the_decoder_has_no_effect_on_the_dynamics_or_the_encoder(tmp_path, options):
    untrained = run(tmp_path / "a", *options, "model.train_decoder=false")
    trained = run(tmp_path / "b", *options, "training.decoder_lr=0.1")
    assert changed(weights(untrained.model), weights(trained.model)) == {"decoder"}


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
@pytest.mark.parametrize(("frames", "expected"), [("5", 5), ("null", 24), ("1000", 24)])
def test_the_decoder_is_trained_on_frames_and_their_own_images(tiny, cache, frames, expected):
    training = tiny(f"training.decoder_frames={frames}", f"training.latent_cache={cache}")
    batch = training.train_data.__getitems__(range(0, 44, 11))
    drawn, compared = [], []
    training.model.decoder.register_forward_hook(lambda module, given, found: drawn.append(given[0]))
    read = training.train_step.images
    training.train_step.images = lambda *arguments: compared.append(read(*arguments)) or compared[-1]
    training.train_step(batch)
    assert len(drawn[0]) == len(compared[0]) == expected
    again = training.model.encoder(compared[0])  # each image really is the one that the decoder should draw
    torch.testing.assert_close(drawn[0], again, rtol=1e-4, atol=1e-4)
    assert len(again.flatten(1).unique(dim=0)) > 1


def test_what_is_not_to_be_trained_stays(tiny):
    training = tiny("model.train_predictor=false")
    before = weights(training.model)
    training.fit()
    assert changed(before, weights(training.model)) == {"decoder"}
    assert "visual_loss" not in (training.folder / "logs.json").read_text().splitlines()[0]


def test_without_a_predictor_the_decoder_alone_is_trained(tmp_path):
    training = run(tmp_path / "run", "has_predictor=false")
    assert training.model.predictor is None
    assert learning_rates(training).keys() == {"decoder"}
    assert without_times(training.folder / "logs.json")[-1] == {"step": 10, "epoch": 2}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.train_encoder=true"], "model.train_encoder=true, but the model's encoder has nothing to train"),
        (["has_decoder=false", "model.train_decoder=true"], "model.train_decoder=true, but the model has no decoder"),
        (["model.train_predictor=false", "model.train_decoder=false"], "nothing to train"),
        ([*DINO, "model.train_encoder=true", "training.latent_cache=memory"], "excludes model.train_encoder=true"),
        (["method=adversarial", "model.train_predictor=false"], "method=adversarial has no effect where the predictor"),
        ([*DINO, "method=online", "model.train_encoder=true"], "method=online keeps latents of a frozen encoder"),
        (["training.latent_cache=tape"], "training.latent_cache must be one of none, memory, disk, got 'tape'"),
        (["training.latent_dtype=int8"], "training.latent_dtype must be one of float32, float16, bf16, got 'int8'"),
        (["training.latent_dtype=bf16"], "training.latent_dtype=bf16 has no effect with training.latent_cache=none"),
        (["training.latent_dir=x", "training.latent_cache=memory"], "training.latent_dir has no effect with training"),
        ([*STATE, "training.latent_cache=memory"], "no effect on an encoder that sees no images"),
        (["training.epochs=0"], "training.epochs=0 must be a whole number, at least 1"),
        (["training.max_batches=0"], "training.max_batches=0 must be a whole number, at least 1"),
        (["training.decoder_frames=0"], "training.decoder_frames=0 must be a whole number, at least 1"),
        (["training.num_reconstruct_samples=-1"], "must be a whole number, at least 0"),
        (["training.predictor_lr=0"], "training.predictor_lr=0 must be a number, above 0"),
        (["training.schedule=cosine"], "training.schedule must be one of constant, one_cycle, got 'cosine'"),
        (["training.batch_size=500"], "batch_size must be in [1, 88], the number of samples, got 500"),
        (["N=9"], "but the longest trajectory has 40"),
        (["img_size=64"], "the data set's frames are 65 x 65, the model's img_size is 64"),
        (["env.dataset.split_ratio=1.0"], "does split_ratio leave none for this part?"),
        (["num_pred=2"], "num_pred must be 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_anything_is_written(tmp_path, overrides, message):
    with pytest.raises(ValueError) as caught:
        build(tmp_path / "run", *overrides)
    assert message in str(caught.value)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not written


def test_a_loss_that_is_not_finite_stops_before_the_update(tiny):
    training = tiny("training.save_every_x_batch=3")
    original, kept = training.method.loss, []

    def spoilt(windows):
        loss = original(windows)
        if training.step == 4:
            kept.append(weights(training.model))
            return type(loss)(loss.total * float("inf"), loss.visual, loss.proprio)
        return loss

    training.method.loss = spoilt
    with pytest.raises(NonFiniteLossError) as caught:
        training.fit()
    message = str(caught.value)
    assert "the loss is inf at step 5 (epoch 1, batch 5, trajectories [" in message
    assert f"Last good checkpoint: {training.folder / 'checkpoints'}" in message
    assert not changed(kept[0], weights(training.model))
    assert header(training.folder / "checkpoints" / "model_latest.safetensors")["step"] == 3
    lines = without_times(training.folder / "logs.json")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


def test_weights_that_an_update_destroyed_are_not_saved(tiny):
    training = tiny(*STATE, "training.save_every_x_batch=2")
    original = training.train_step.optimizers.step

    def step(progress):
        original(progress)
        if training.step == 3:
            training.model.predictor.net[0].bias.data[0] = float("inf")

    training.train_step.optimizers.step = step
    with pytest.raises(NonFiniteLossError, match=r"predictor.net.0.bias is not finite after step 4 .*Last good checkp"):
        training.fit()
    assert read_checkpoint(training.folder).about["step"] == 2
    assert read_checkpoint(training.folder).tensors["predictor.net.0.bias"].isfinite().all()


def test_bad_data_stops_the_first_step_and_nothing_is_there_to_continue_from(tiny):
    training = tiny(*STATE)
    training.train_data._proprio_z[:] = float("nan")
    before = weights(training.model)
    with pytest.raises(NonFiniteLossError, match=r"step 1 \(epoch 1, batch 1, .*Last good checkpoint: none yet"):
        training.fit()
    assert not changed(before, weights(training.model))


@pytest.mark.parametrize("method", ["offline", "adversarial"])
def test_each_distinct_frame_is_encoded_once_a_step(tiny, method):
    training = tiny(f"method={method}", "model.train_decoder=false")
    training.model.decoder.register_forward_hook(lambda *_: pytest.fail("a frame was decoded"))
    encoded = []
    training.model.encoder.register_forward_hook(lambda module, given, found: encoded.append(given[0].flatten(0, -4)))
    training.train_step(training.train_data.__getitems__(range(4)))
    assert sum(len(frames) for frames in encoded) == 4 * 6  # 20 windows of 2 frames would be 40


def test_optimizers_have_the_stated_rates(tmp_path):
    fresh = "training.schedule=constant", "training.predictor_lr=null", "training.weight_decay=0.01"
    defaults = "training.action_encoder_lr=5e-4", "training.decoder_lr=3e-4"
    base = run(tmp_path / "base", *fresh, *defaults, "training.epochs=1")
    assert learning_rates(base) == {"predictor": 5e-4, "action_encoder": 5e-4, "decoder": 3e-4}
    kinds = {name: type(optimizer) for name, optimizer in base.train_step.optimizers._optimizers.items()}
    assert kinds == {"predictor": torch.optim.AdamW, "action_encoder": torch.optim.AdamW, "decoder": torch.optim.Adam}
    decays = {name: o.param_groups[0]["weight_decay"] for name, o in base.train_step.optimizers._optimizers.items()}
    assert decays == {"predictor": 0.01, "action_encoder": 0.01, "decoder": 0}
    finetuned = build(tmp_path / "fine", *fresh, *defaults, f"ckpt_path={tmp_path / 'base'}")
    assert learning_rates(finetuned) == {"predictor": 1e-5, "action_encoder": 5e-4}  # the decoder came trained
    again = ("model.train_decoder=true", "training.predictor_lr=2e-5")
    explicit = build(tmp_path / "explicit", *fresh, *defaults, *again, f"ckpt_path={tmp_path / 'base'}")
    assert learning_rates(explicit) == {"predictor": 2e-5, "action_encoder": 5e-4, "decoder": 3e-4}


def test_the_proprio_encoder_is_trained_with_the_action_encoder(tiny):
    training = tiny("proprio_encoder=proprio")
    trained = {id(p) for p in training.train_step.optimizers._optimizers["action_encoder"].param_groups[0]["params"]}
    expected = [*training.model.action_encoder.parameters(), *training.model.proprio_encoder.parameters()]
    assert trained == {id(parameter) for parameter in expected}
    assert len(trained) == 4


def test_schedules(tiny):
    assert {constant(progress) for progress in (0.0, 0.3, 0.99)} == {1.0}
    assert one_cycle(0.0) == pytest.approx(1 / 25)
    assert one_cycle(0.1) == pytest.approx(1.0)
    assert one_cycle(1.0) == pytest.approx(1e-4)
    rising, falling = [one_cycle(i / 1000) for i in range(101)], [one_cycle(i / 1000) for i in range(100, 1000)]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)
    training = tiny(*STATE, "training.predictor_lr=0.5")
    seen, original = [], training.train_step.optimizers.step

    def noting(progress):
        original(progress)
        seen.append((progress, learning_rates(training)["predictor"]))

    training.train_step.optimizers.step = noting
    training.fit()
    assert [progress for progress, _ in seen] == pytest.approx([i / 10 for i in range(10)])
    assert [rate for _, rate in seen] == pytest.approx([0.5 * one_cycle(i / 10) for i in range(10)])


@pytest.mark.parametrize("part", ["encoder", "predictor", "action_encoder", "decoder"])
@pytest.mark.parametrize("value", [0.0, -1e-3, math.nan])
def test_rates_that_cannot_train_are_refused(part, value):
    rates = {"encoder": 1.0, "predictor": 1.0, "action_encoder": 1.0, "decoder": 1.0} | {part: value}
    with pytest.raises(ValueError, match=rf"training\.{part}_lr must be > 0"):
        LearningRates(**rates)


def test_an_update_moves_every_part_by_its_own_rate(tiny):
    training = tiny()
    rates = LearningRates(encoder=1e-6, predictor=1e-3, action_encoder=1e-2, decoder=1e-4, weight_decay=0.0)
    optimizers = Optimizers(training.model, rates, False, True, True)
    before = weights(training.model)
    for parameter in training.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    optimizers.step(0.0)
    after = weights(training.model)
    for part, rate in (("predictor", 1e-3), ("action_encoder", 1e-2), ("decoder", 1e-4)):
        moved = [before[name] - after[name] for name in before if name.startswith(f"{part}.")]
        for difference in moved:  # Adam's first step is the rate itself
            torch.testing.assert_close(difference, torch.full_like(difference, rate), rtol=1e-2, atol=1e-6)


FEW = ("training.epochs=1", "training.max_batches=4", "training.num_reconstruct_samples=0")


def test_fused_optimizers_train_as_plain_ones(tmp_path):
    fused, plain = (run(tmp_path / choice, *FEW, f"speed.fused_optimizers={choice}") for choice in ("true", "false"))
    assert fused.train_step.optimizers._optimizers["predictor"].defaults["fused"] is True
    assert plain.train_step.optimizers._optimizers["predictor"].defaults["fused"] is False
    reference = weights(plain.model)
    for name, tensor in weights(fused.model).items():
        torch.testing.assert_close(tensor, reference[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fused", ["true", "false"])
def test_no_kind_of_optimizer_makes_a_refused_update(tiny, fused):
    training = tiny(f"speed.fused_optimizers={fused}")
    training.train_step(training.train_data.__getitems__(range(4)))
    before = weights(training.model)
    training.train_step.optimizers.refuse_if_not_finite(torch.tensor(math.inf))
    training.train_step.optimizers.step(0.0)
    assert not changed(before, weights(training.model))


@pytest.mark.parametrize("method", ["offline", "adversarial"])
def test_bf16_gives_the_losses_of_float32(tmp_path, method):
    """Within the three digits that bf16 has."""
    logs = []
    for precision in ("float32", "bf16"):
        training = run(tmp_path / precision, *FEW, f"method={method}", f"precision={precision}")
        logs.append(without_times(training.folder / "logs.json"))
        assert {parameter.dtype for parameter in training.model.parameters()} == {torch.float32}
    for found, expected in zip(*reversed(logs), strict=True):
        assert found == pytest.approx(expected, rel=2e-2)
    assert logs[0] != logs[1]


def test_validation_numbers_are_means_over_the_validation_set(tmp_path):
    training = run(tmp_path / "run", "training.val_batches=100", "training.epochs=1")
    model, data = training.model, training.validation.data
    assert set(data.trajectory.tolist()).isdisjoint(training.train_data.trajectory.tolist())
    reported = without_times(training.folder / "logs.json")[-1]
    sums = dict.fromkeys(("val_loss", "val_visual_loss", "val_proprio_loss", "val_open_loop_visual"), 0.0)
    sums["val_nothing_moves_visual"] = 0.0
    model.eval()
    with torch.no_grad():
        for number in range(len(data)):
            sample = data[number]
            z = model.encode(sample.visual, sample.proprio)
            predicted = model.predict_tokens(model.tokens(z[:, :5].map(lambda p: p.transpose(0, 1)),
                                                          sample.actions[:, :5].transpose(0, 1)))  # fmt: skip
            visual = (predicted[:, 0, :, :32] - z.visual[0, 1:]).square()
            proprio = (predicted[:, 0, :, 32:42] - z.proprio[0, 1:, None]).square()
            sums["val_visual_loss"] += visual.mean().item()
            sums["val_proprio_loss"] += proprio.mean().item()
            sums["val_loss"] += torch.cat([visual, proprio], -1).mean().item()
            imagined = model.rollout(z[:, :1], sample.actions[:, :5]).visual[:, 5]
            sums["val_open_loop_visual"] += (imagined - z.visual[:, 5]).square().mean().item()
            sums["val_nothing_moves_visual"] += (z.visual[:, 0] - z.visual[:, 5]).square().mean().item()
    expected = {name: value / len(data) for name, value in sums.items()}
    assert reported == pytest.approx({"step": 5, "epoch": 1, **expected}, rel=1e-4)


def test_validation_neither_draws_nor_learns_nor_leaves_eval_mode_behind(tiny):
    training = tiny("predictor.dropout=0.5")
    training.model.train()
    state, before = torch.get_rng_state(), weights(training.model)
    first = validation_losses(training.model, training.validation.batches(), training.train_step.latent)
    second = validation_losses(training.model, training.validation.batches(), training.train_step.latent)
    assert first == second  # the same batches, no dropout
    assert torch.equal(state, torch.get_rng_state())
    assert not changed(before, weights(training.model))
    assert training.model.predictor.training
    assert all(parameter.grad is None for parameter in training.model.parameters())


def test_open_loop_error_of_a_model_that_predicts_no_change_is_that_of_standing_still(tiny):
    training = tiny()  # untrained, it predicts no change
    latent = Latent(torch.randn(3, 6, 16, 32), torch.randn(3, 6, 10))
    error, still = open_loop_errors(training.model.eval(), latent, torch.randn(3, 6, 10))
    torch.testing.assert_close(error, still)
    expected = torch.stack([(latent.visual[:, 0] - latent.visual[:, t]).square().mean() for t in range(1, 6)])
    torch.testing.assert_close(still, expected)


def test_the_open_loop_picture_shows_true_frames_above_imagined_ones(tmp_path):
    training = run(tmp_path / "run", "training.num_reconstruct_samples=2", "training.epochs=1")
    with Image.open(training.folder / "open_loop" / "epoch_1.png") as picture:
        picture.load()
        sheet = np.asarray(picture)
    side, step = 112, 116
    assert sheet.shape == (4 * step - 4, 6 * step - 4, 3)
    sample = training.validation.data[0]
    for frame in range(6):
        tile = sheet[:side, frame * step : frame * step + side]
        np.testing.assert_array_equal(tile, enlarge(to_uint8(sample.visual[0, frame]), side))
    assert sheet[step : step + side, :side].std() > 0  # something was decoded


def test_without_a_decoder_the_picture_is_a_curve_and_0_draws_none(tmp_path):
    training = run(tmp_path / "run", *STATE, "training.num_reconstruct_samples=1")
    for epoch in (1, 2):
        with Image.open(training.folder / "open_loop" / f"epoch_{epoch}.png") as picture:
            assert picture.format == "PNG"
            picture.load()
    quiet = run(tmp_path / "quiet", *STATE, "training.num_reconstruct_samples=0")
    assert not (quiet.folder / "open_loop").exists()


def test_weights_of_every_epoch_asked_for_and_the_latest_are_written(tmp_path):
    training = run(tmp_path / "run", *STATE, "training.epochs=5", "training.save_every_x_epoch=2")
    folder = training.folder / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {
        "model_2.safetensors", "model_4.safetensors", "model_latest.safetensors", "training_state.pt"
    }  # fmt: skip
    assert header(folder / "model_4.safetensors")["step"] == 20
    latest = read_checkpoint(training.folder)
    assert (latest.epoch, latest.about["step"]) == (5, 25)
    model = build(tmp_path / "other", *STATE).model
    assert load_weights(model, latest) == []
    assert not changed(weights(model), weights(training.model))


def test_debug_is_one_short_epoch(tmp_path):
    training = run(tmp_path / "run", *STATE, "training.max_batches=null", "debug=true")
    assert training.step == 4
    shorter = run(tmp_path / "shorter", *STATE, "training.max_batches=2", "debug=true")
    assert shorter.step == 2


def test_the_log_has_a_line_a_step_and_one_an_epoch(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        training = run(tmp_path / "run", "method=adversarial")
    lines = [json.loads(line) for line in (training.folder / "logs.json").read_text().splitlines()]
    assert [(line["step"], line["epoch"]) for line in lines] == [
        *((step, 0) for step in range(1, 6)), (5, 1), *((step, 1) for step in range(6, 11)), (10, 2)
    ]  # fmt: skip
    numbers = {"loss", "visual_loss", "proprio_loss", "decoder_loss", "visual_eps", "proprio_eps", "action_eps"}
    assert set(lines[0]) == numbers | {"step", "epoch", "steps_per_second", "data_wait"}
    assert all(line["steps_per_second"] > 0 for line in lines if "loss" in line)
    assert "epoch 2: val_loss" in caplog.text


def test_training_lowers_the_loss(tmp_path):
    training = run(tmp_path / "run", *STATE, "training.epochs=8", "training.max_batches=20")
    lines = without_times(training.folder / "logs.json")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    validation = [line["val_loss"] for line in lines if "val_loss" in line]
    assert validation[-1] < 0.6 * validation[0]
