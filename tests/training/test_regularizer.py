"""What keeps a trained encoder from collapsing: its terms by hand, and what a short training makes of it."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from hydra.utils import instantiate

from models.checkpoints.native import read_checkpoint
from models.latent_geometry import curvature, feature_spread, step_correlation
from tests.builders import option
from tests.training.resuming import assert_same_run, interrupt
from tests.training.tiny import build, changed, run, weights, without_times
from training.regularizer import POOLS, FeatureTerms, Regularizer, VICReg, covariance_loss, variance_loss

RESNET = (
    "experiment=wall_resnet",
    "encoder.width=8",
    "encoder.emb_dim=8",
    "has_decoder=false",
    "training.num_reconstruct_samples=0",
    "training.schedule=constant",
)
"""A tiny encoder that trains."""


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_variance_by_hand():
    """Two patches of two features over three frames: deviations 1, 2, 0.5 and 0 against the wanted 1."""
    wave = torch.tensor([-1.0, 0.0, 1.0])
    samples = torch.stack([torch.stack([wave, 2 * wave], 1), torch.stack([0.5 * wave, 0 * wave], 1)])  # (2, 3, 2)
    assert variance_loss(samples, epsilon=0.0).item() == pytest.approx((0 + 0 + 0.5 + 1) / 4)
    assert variance_loss(samples).item() == pytest.approx((1 - 0.2501**0.5 + 0.99) / 4, rel=1e-5)


def test_covariance_by_hand():
    """cov(a, b) = 2 in the first patch, 0 in the second; each off-diagonal entry counts, D = 2."""
    wave, square = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([1.0, -2.0, 1.0])
    samples = torch.stack([torch.stack([wave, 2 * wave + 5], 1), torch.stack([wave, square], 1)])
    assert covariance_loss(samples).item() == pytest.approx((2 * 2.0**2 / 2 + 0) / 2)


def test_the_terms_are_weighted_and_named():
    features = numbers(3, 4, 2, 5)
    found = VICReg(variance_weight=2.0, covariance_weight=0.3, slowness_weight=0.7).losses(features)
    by_patch = features.permute(2, 0, 1, 3).reshape(2, 12, 5)
    slowness = (features[:, 1:] - features[:, :-1]).square().mean()
    expected = 2.0 * variance_loss(by_patch) + 0.3 * covariance_loss(by_patch) + 0.7 * slowness
    torch.testing.assert_close(found["regularizer_loss"], expected)
    torch.testing.assert_close(found["slowness_loss"], slowness)
    assert set(found) == {"regularizer_loss", "variance_loss", "covariance_loss", "slowness_loss"}
    half = VICReg(1.0, 0.0, 0.0).losses(features.bfloat16())
    assert half["regularizer_loss"].dtype == torch.float32


def test_the_gradient_pushes_a_collapsed_batch_apart():
    features = (1e-3 * numbers(4, 3, 2, 6)).requires_grad_()
    regularizer = VICReg(variance_weight=1.0, covariance_weight=0.04, slowness_weight=0.0)
    optimizer = torch.optim.SGD([features], lr=20.0)
    before = feature_spread(features.detach().flatten(0, 1))
    for _ in range(100):
        optimizer.zero_grad()
        regularizer.losses(features)["regularizer_loss"].backward()
        optimizer.step()
    assert before["feature_std"] < 2e-3
    assert feature_spread(features.detach().flatten(0, 1))["feature_std"] > 0.9


def test_slowness_pulls_neighbours_in_time_together_and_nothing_else():
    features = numbers(2, 2, 1, 1).requires_grad_()
    VICReg(1e-9, 0.0, 1.0).losses(features)["regularizer_loss"].backward()
    step = (features[:, 1] - features[:, 0]).detach()
    torch.testing.assert_close(features.grad[:, 1], 2 * step / 2, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(features.grad[:, 0], -2 * step / 2, rtol=1e-4, atol=1e-6)


def path(*points: tuple[float, float]) -> torch.Tensor:
    """(1, F, 1, 2)."""
    return torch.tensor(points)[None, :, None].float()


STRAIGHT, CORNER = path((0, 0), (1, 1), (3, 3), (4, 4)), path((0, 0), (2, 0), (2, 1), (5, 1))
THERE_AND_BACK, PAUSE = path((0, 0), (1, 2), (0, 0)), path((0, 0), (1, 0), (1, 0), (1, 1))


@pytest.mark.parametrize(("points", "expected"), [(STRAIGHT, 0), (CORNER, 1), (THERE_AND_BACK, 2), (PAUSE, 0)])
def test_curvature_of_known_paths(points, expected):
    assert curvature(points).item() == pytest.approx(expected, abs=1e-6)
    assert curvature(1e-3 * points).item() == pytest.approx(expected, abs=1e-6), "whatever its scale"


def test_steps_without_a_direction_are_left_out_of_mean_and_gradient():
    corner, still = torch.cat([CORNER, torch.zeros_like(CORNER)]).requires_grad_(), curvature(torch.zeros(2, 4, 3, 5))
    assert curvature(corner).item() == pytest.approx(1) and still.item() == 0
    curvature(corner).backward()
    assert corner.grad.isfinite().all() and corner.grad[0].any() and not corner.grad[1].any()


def test_descending_curvature_straightens_a_path():
    points = numbers(2, 6, 3, 4).requires_grad_()
    optimizer = torch.optim.SGD([points], lr=2.0)
    for _ in range(200):
        optimizer.zero_grad()
        curvature(points).backward()
        optimizer.step()
    assert curvature(points).item() < 0.1 < curvature(numbers(2, 6, 3, 4)).item()


def test_distances_that_grow_with_the_steps_correlate_with_them():
    line = torch.arange(5.0)[None, :, None] * torch.tensor([1.0, 2.0])
    assert step_correlation(line).item() == pytest.approx(1)
    assert step_correlation(torch.zeros(1, 5, 2)).item() == 0
    # round a square, steps 1 1 1 2 2 3 have ranks 1 1 1 3.5 3.5 5; four distances of 2 and two diagonals 1.5 and 4.5
    square = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]])
    ranks = torch.tensor([[1, 1, 1, 3.5, 3.5, 5], [1.5, 1.5, 1.5, 4.5, 4.5, 1.5]])
    assert step_correlation(square).item() == pytest.approx(torch.corrcoef(ranks)[0, 1].item(), abs=1e-6)


def test_the_pool_says_whose_path_is_straight():
    """Two patches that turn together by a right angle, and two whose turns cancel in the mean."""
    together = torch.cat([CORNER[:, :3], CORNER[:, :3] - 7], 2)
    opposite = torch.cat([path((0, 0), (1, 0), (1, 1)), path((0, 0), (0, 1), (1, 1))], 2)
    found = {}
    for pool in POOLS:
        terms = FeatureTerms(curvature_weight=1.0, pool=pool)
        torch.manual_seed(0)
        terms.setup(num_frames=3, num_patches=2, dim=2)
        found[pool] = [terms.losses(z)["curvature_loss"].item() for z in (together, opposite)]
    assert found["patch"] == found["flatten"] == pytest.approx([1, 1], abs=1e-6)
    assert found["mean"] == pytest.approx([1, 0], abs=1e-6)
    assert 0 < found["mlp"][0] < 2


def test_the_network_of_the_curvature_computes_in_full_precision():
    features, terms = 1 + 1e-3 * numbers(2, 4, 2, 3), FeatureTerms(curvature_weight=1.0, pool="mlp")
    terms.setup(num_frames=4, num_patches=2, dim=3)
    with torch.autocast("cpu", torch.bfloat16):
        found = terms.losses(features)["curvature_loss"]
    torch.testing.assert_close(found, terms.losses(features)["curvature_loss"], rtol=0, atol=0)


def test_spread_by_hand():
    one, other = torch.zeros(40, 2, 3), torch.zeros(40, 2, 3)
    one[:, 0, 0] = 1.0  # every frame looks the same
    found = feature_spread(one + 1e-6 * numbers(40, 2, 3))
    assert found["feature_std"] < 2e-6 and found["feature_rank"] == pytest.approx(1, abs=1e-3)
    other[:20, 0, 0], other[20:, 1, 2] = 1.0, 1.0  # two kinds of frames, equally many
    found = feature_spread(other)
    assert found["feature_rank"] == pytest.approx(2, rel=1e-5)
    assert found["feature_std"] == pytest.approx(2 * (0.25 * 40 / 39) ** 0.5 / 6, rel=1e-5)
    assert feature_spread(numbers(500, 2, 3))["feature_rank"] > 5.9
    wide = numbers(3, 2, 3)
    assert feature_spread(wide)["feature_rank"] < 3  # more features than frames


def test_every_option_is_a_regularizer():
    assert not instantiate(option("regularizer", "none")).acts
    vicreg = instantiate(option("regularizer", "vicreg"))
    assert vicreg.acts and vicreg.name == "vicreg"
    straighten = instantiate(option("regularizer", "straighten"))
    assert straighten.acts and straighten.weights["curvature"] == 0.1 and not straighten.prevents_collapse
    assert Regularizer().losses(numbers(2, 2, 2, 2)) == {}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.0, 1.0, 1.0), r"regularizer.variance_weight must be > 0 .*, got 0.0"),
        ((float("nan"), 1.0, 1.0), r"regularizer.variance_weight must be > 0 .*, got nan"),
        ((1.0, -1.0, 1.0), r"regularizer.covariance_weight must be >= 0, got -1.0"),
        ((1.0, 1.0, -2.0), r"regularizer.slowness_weight must be >= 0, got -2.0"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        VICReg(*weights)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "regularizer=straighten: all of its weights are 0; set regularizer=none"),
        ({"curvature_weight": -1.0}, "regularizer.curvature_weight must be >= 0, got -1.0"),
        (
            {"curvature_weight": 1.0, "pool": "max"},
            "regularizer.pool must be one of patch, mean, flatten, mlp, got 'max'",
        ),
    ],
)
def test_terms_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        FeatureTerms(**settings)


def test_a_bend_takes_three_frames():
    with pytest.raises(ValueError, match=r"needs samples of 3 frames, and N \+ num_hist = 2; raise N by 1"):
        FeatureTerms(curvature_weight=0.1).setup(num_frames=2, num_patches=1, dim=2)


def test_variance_stays_with_it_and_falls_without(tmp_path):
    short = (*RESNET, "training.max_batches=22", "training.epochs=1")
    spread = {}
    for name, overrides in {"with": (), "without": ("regularizer=none",)}.items():
        trainer = run(tmp_path / name, *short, *overrides)
        last = without_times(trainer.folder / "logs.json")[-1]
        spread[name] = (last["val_feature_std"], last["val_feature_rank"])
    assert spread["with"][0] > 0.3 and spread["without"][0] < 0.1, spread
    assert spread["with"][1] > 1.5 * spread["without"][1], spread


def test_it_acts_on_the_encoder_and_is_logged(tmp_path):
    trainer = build(tmp_path / "run", *RESNET, "training.epochs=1", "training.max_batches=1")
    before = weights(trainer.model)
    trainer.fit()
    assert changed(before, weights(trainer.model)) == {"encoder", "predictor", "action_encoder"}
    line = without_times(trainer.folder / "logs.json")[0]
    terms = [line[f"{name}_loss"] for name in ("variance", "covariance", "slowness")]
    expected = sum(weight * term for weight, term in zip((1.0, 0.04, 1.0), terms, strict=True))
    assert line["regularizer_loss"] == pytest.approx(expected, rel=1e-4)
    stored = read_checkpoint(trainer.folder).tensors
    assert torch.equal(stored["encoder.stem.weight"], trainer.model.encoder.stem.weight)


def test_a_trained_encoder_resumes_bit_for_bit(tmp_path):
    sizes = ("training.max_batches=3", "training.save_every_x_batch=2", "training.schedule=one_cycle")
    overrides = (*RESNET, *sizes, f"ckpt_path={tmp_path / 'no_base'}")
    run(tmp_path / "whole", *overrides)
    for after in (1, 2, 4):
        folder = tmp_path / f"after_{after}"
        assert interrupt(build(folder, *overrides), after)
        torch.manual_seed(after)
        run(folder, *overrides)
        assert_same_run(folder, tmp_path / "whole")


@pytest.mark.parametrize("method", ["online", "adversarial"])
def test_finetuning_starts_from_it_and_leaves_the_encoder_alone(tmp_path, method):
    base = run(tmp_path / "base", *RESNET, "training.epochs=1", "training.max_batches=1").folder
    frozen = ("model.train_encoder=false", "regularizer=none", f"method={method}", f"ckpt_path={base}")
    brief = ["replay_buffer_frequency=1", "method.planner.opt_steps=1"] if method == "online" else []
    trainer = run(tmp_path / "run", *RESNET, *frozen, *brief, "training.epochs=1", "training.max_batches=1")
    assert changed(read_checkpoint(base).tensors, read_checkpoint(trainer.folder).tensors) == {
        "predictor",
        "action_encoder",
    }
    assert "val_feature_std" not in without_times(trainer.folder / "logs.json")[-1]


def test_a_regularizer_without_a_trained_encoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"regularizer=vicreg has no effect on features that are not trained; set"):
        build(tmp_path / "run", *RESNET, "model.train_encoder=false")
    with pytest.raises(ValueError, match=r"regularizer=vicreg has no effect"):
        build(tmp_path / "run", "regularizer=vicreg")
    assert not (tmp_path / "run").exists()


def test_a_random_encoder_that_would_collapse_or_stay_random_is_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="training.assemble"):
        build(tmp_path / "with", *RESNET)
        build(tmp_path / "small")
        assert not [record for record in caplog.records if record.name == "training.assemble"]
        build(tmp_path / "without", *RESNET, "regularizer=none")
        assert "COLLAPSE" in caplog.text and "set regularizer=vicreg" in caplog.text
        caplog.clear()
        build(tmp_path / "straight", *RESNET, "regularizer=straighten")
        assert "regularizer=straighten" in caplog.text and "COLLAPSE" in caplog.text
        caplog.clear()
        build(tmp_path / "frozen", *RESNET, "regularizer=none", "model.train_encoder=false")
        assert "it will stay random" in caplog.text
