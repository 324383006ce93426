"""Two processes train as one does: the same losses, metrics, weights and files, up to rounding."""

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.tiny import BRIEF_PLANS, SMALL, STATE, build, run, without_times
from utils import distributed
from utils.interrupts import StopRequested

ROUNDING = {"rtol": 5e-4, "atol": 5e-6}
"""Of float32 sums in another order, after a few steps of training."""

SHORT = (*STATE, "training.max_batches=4", "training.val_batches=3", "training.num_reconstruct_samples=0")
ONLINE = BRIEF_PLANS["online"]
METHODS = {
    "offline": [],
    "offline_rollout": ["method.rollout_steps=3"],
    "online": ONLINE,
    "online_all": [*ONLINE, "method.tasks=random_state", "method.replay_sampling=all", "method.replay_capacity=10"],
    "adversarial_fixed": ["method=adversarial", "radii_method=fixed"],
    "adversarial_adaptive": ["method=adversarial", "radii_method=adaptive", "adversarial.pgd_steps=2"],
    "online_adversarial": BRIEF_PLANS["online_adversarial"],
}
DROPOUT = ("predictor=vit", "predictor.depth=1", "predictor.heads=2", "predictor.dim_head=8", "predictor.mlp_dim=16")
IMAGES = (*SMALL, "training.max_batches=2", "training.epochs=1", "training.num_reconstruct_samples=0")
IMAGE_PARTS = {
    "decoder": ["model.train_decoder=true", "training.decoder_frames=3"],
    "encoder": ["experiment=wall_resnet", "encoder.width=8", "encoder.emb_dim=8", "has_decoder=false"],
    "latents": ["training.latent_cache=disk"],
    "projector": ["experiment=wall_straight", "has_decoder=false", "projector.hidden=8", "regularizer.pool=mlp",
                  "regularizer.variance_weight=1"],
}  # fmt: skip


def train(folder, overrides, data, base=None):
    """In any process: train to the end, from ``base`` if there is one."""
    os.environ["DATASET_DIR"] = str(data)
    torch.set_num_threads(1)
    run(Path(folder), *overrides, f"ckpt_path={base or Path(folder).parent / 'no_base'}")


def weights_of(folder):
    return load_file(folder / "checkpoints" / "model_latest.safetensors")


def assert_close(folder, alone, tolerance=ROUNDING):
    """The logs, line by line, and the weights of two runs."""
    found, expected = without_times(folder / "logs.json"), without_times(alone / "logs.json")
    assert [line.keys() for line in found] == [line.keys() for line in expected]
    for line, wanted in zip(found, expected, strict=True):
        for name in wanted:
            one, other = (torch.tensor(each[name], dtype=torch.float64) for each in (line, wanted))
            torch.testing.assert_close(one, other, **tolerance, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(weights_of(folder), weights_of(alone), **tolerance)


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("batch_size", [4, 5])
def test_losses_metrics_and_weights_are_those_of_one_process(pair, tmp_path, wall_root, method, batch_size):
    """A batch of 5 falls into unequal shares."""
    overrides = (*SHORT, *METHODS[method], f"training.batch_size={batch_size}")
    train(tmp_path / "alone", overrides, wall_root)
    pair(train, tmp_path / "pair", overrides, wall_root)
    assert_close(tmp_path / "pair", tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("part", list(IMAGE_PARTS))
def test_so_are_those_of_the_parts_that_see_images(pair, tmp_path, wall_root, part):
    overrides = (*IMAGES, *IMAGE_PARTS[part], "training.batch_size=3")
    train(tmp_path / "alone", overrides, wall_root)
    pair(train, tmp_path / "pair", overrides, wall_root)
    # convolutions over other batch sizes, and Adam, which makes steps of equal size out of gradients near zero
    assert_close(tmp_path / "pair", tmp_path / "alone", {"rtol": 2e-3, "atol": 5e-5})


def test_so_are_those_of_a_proposal(pair, tmp_path, wall_root):
    base = run(tmp_path / "base", *SHORT, "training.epochs=1").folder
    narrow = [f"proposal.{name}" for name in ("width=16", "depth=1", "heads=2", "dim_head=8", "mlp_dim=16")]
    overrides = (*SHORT, "method=proposal", "method.goal_weight=0.1", *narrow, "training.batch_size=5")
    train(tmp_path / "alone", overrides, wall_root, base)
    pair(train, tmp_path / "pair", overrides, wall_root, base)
    assert_close(tmp_path / "pair", tmp_path / "alone")


def interrupted(folder, overrides, data, after):
    """In any process: the same signal after some step."""
    os.environ["DATASET_DIR"] = str(data)
    torch.set_num_threads(1)
    trainer = build(Path(folder), *overrides, f"ckpt_path={Path(folder).parent / 'no_base'}")

    def with_signal(trainer, batch):
        if trainer.step + 1 == after and distributed.is_main():  # one process hears of it, all stop
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.on_step.append(with_signal)
    with pytest.raises(StopRequested):
        trainer.fit()
    return trainer.step


@pytest.mark.parametrize("first", ["alone", "pair"])
def test_another_number_of_processes_continues_a_run(pair, tmp_path, wall_root, first):
    """With a replay memory that was written by another number; the end is that of a run in one piece."""
    overrides = (*SHORT, *METHODS["online_all"], "training.batch_size=5")
    train(tmp_path / "whole", overrides, wall_root)
    if first == "alone":
        assert interrupted(tmp_path / "run", overrides, wall_root, 3) == 3
        pair(train, tmp_path / "run", overrides, wall_root)
    else:
        assert pair(interrupted, tmp_path / "run", overrides, wall_root, 3) == [3, 3]
        train(tmp_path / "run", overrides, wall_root)
    assert_close(tmp_path / "run", tmp_path / "whole")


def test_two_processes_continue_bit_for_bit(pair, tmp_path, wall_root):
    overrides = (*SHORT, *METHODS["online_adversarial"], *DROPOUT)
    pair(train, tmp_path / "whole", overrides, wall_root)
    pair(interrupted, tmp_path / "run", overrides, wall_root, 6)
    pair(train, tmp_path / "run", overrides, wall_root)
    assert without_times(tmp_path / "run" / "logs.json") == without_times(tmp_path / "whole" / "logs.json")
    for name, tensor in weights_of(tmp_path / "whole").items():
        assert torch.equal(weights_of(tmp_path / "run")[name], tensor), name
