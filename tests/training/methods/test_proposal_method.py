"""Training of the proposal: what it learns from, what it leaves alone, what it refuses."""

import dataclasses
import json
import logging

import pytest
import torch
from omegaconf import OmegaConf

from datasets.batch import Batch
from models.checkpoints.loading import EncoderConfig, load_for_planning
from models.checkpoints.native import read_checkpoint
from models.networks.initnet import InitNet
from models.networks.inverse import InverseModel
from planning.observer import Observer
from tests.builders import POINT_NORMALIZER, latent_of, numbers, point_model
from tests.training.resuming import assert_same_run, interrupt
from tests.training.tiny import STATE, build, changed, composed, header, run, train_config, weights, without_times
from training.methods.base import TrainingContext
from training.methods.proposal import ProposalTraining

NARROW = ("proposal.width=16", "proposal.depth=1", "proposal.heads=2", "proposal.dim_head=8", "proposal.mlp_dim=16")
METHOD = ("method=proposal", *NARROW)
FRAMESKIP, HORIZON, SAMPLES = 2, 3, 64


@pytest.fixture(scope="module", params=[1, 3], ids=["H1", "H3"])
def base(tmp_path_factory, wall_root, request):
    """A trained model directory that observes states, with one and with three frames of history."""
    history = () if request.param == 1 else ("predictor=vit", "predictor.depth=1", "predictor.heads=1", "num_hist=3",
                                             "predictor.dim_head=8", "predictor.mlp_dim=8")  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DATASET_DIR", str(wall_root))
        return run(tmp_path_factory.mktemp("base") / "base", *STATE, *history, "training.epochs=1").folder


@pytest.fixture(scope="module")
def of_images(tmp_path_factory, wall_root):
    """The same of a model that sees images, with a decoder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DATASET_DIR", str(wall_root))
        return run(tmp_path_factory.mktemp("base") / "of_images", "training.epochs=1").folder


def frozen_tensors(folder):
    """All saved tensors but the network's."""
    return {n: t for n, t in read_checkpoint(folder).tensors.items() if not n.startswith("proposal.")}


def point_method(network=None, **settings):
    """The method on a point in the plane that moves by its actions, and a batch of random walks."""
    torch.manual_seed(0)
    model = point_model(frameskip=FRAMESKIP)
    sizes = (1, 2, 2, 2 * FRAMESKIP, HORIZON)
    model.proposal = (
        network(*sizes) if network else InitNet(*sizes, width=32, depth=2, heads=2, dim_head=16, mlp_dim=64)
    )
    method = ProposalTraining(**settings)
    method.setup(TrainingContext(model, Observer(model, POINT_NORMALIZER), None, FRAMESKIP, 0, None))
    actions = numbers(SAMPLES, 6, 1, seed=1).expand(-1, -1, 2 * FRAMESKIP).clone()  # every raw action of a block alike
    raw = POINT_NORMALIZER.actions_to_raw(actions).unflatten(-1, (FRAMESKIP, 2)).sum(2).double()
    states = torch.cat([torch.zeros(SAMPLES, 1, 2).double(), raw[:, :-1].cumsum(1)], 1)
    z = POINT_NORMALIZER.states_to_z(states)
    batch = Batch(
        proprio=z, actions=actions, states=states, trajectory=torch.arange(SAMPLES), start=torch.zeros(SAMPLES)
    )
    return method, batch, model.embed(z[:, :, None], z)


def test_the_targets_are_the_blocks_of_the_data_and_then_the_zero_action():
    method, batch, latent = point_method()
    row, first, ahead = torch.tensor([4, 5, 6]), torch.tensor([0, 2, 3]), torch.tensor([3, 1, 2])
    start, goal, target = method._tasks(batch, latent, row, first, ahead)
    zero = POINT_NORMALIZER.zero_block(FRAMESKIP)
    assert torch.equal(target[0], batch.actions[4, :3])
    assert torch.equal(target[1], torch.stack([batch.actions[5, 2], zero, zero]))
    assert torch.equal(target[2], torch.stack([batch.actions[6, 3], batch.actions[6, 4], zero]))
    assert torch.equal(start.visual[:, 0], latent.visual[row, first])
    assert torch.equal(goal.visual[:, 0], latent.visual[row, first + ahead])
    assert torch.equal(goal.proprio[:, 0], batch.proprio[row, first + ahead])
    assert not POINT_NORMALIZER.actions_to_raw(target[1, 1:]).abs().max() > 1e-6


def test_every_distance_and_every_start_that_fits_is_drawn():
    method, batch, latent = point_method(pairs=8)
    seen = []
    original = method._tasks
    method._tasks = lambda b, z, row, first, ahead: (
        seen.append((row, first, ahead)) or original(b, z, row, first, ahead)
    )
    method.losses(batch, latent, 0)
    row, first, ahead = seen[0]
    assert row.bincount().tolist() == [8] * SAMPLES
    assert set(zip(first.tolist(), ahead.tolist(), strict=True)) == {
        (s, k) for k in range(1, HORIZON + 1) for s in range(6 - k)
    }


def test_goals_may_lie_beyond_what_is_proposed():
    method, batch, latent = point_method(pairs=8, farthest=5)
    asked = []
    original = method._tasks
    method._tasks = lambda *a: asked.append(a[-1]) or original(*a)
    method.losses(batch, latent, 0)
    assert set(asked[0].tolist()) == {1, 2, 3, 4, 5}
    row, first, ahead = torch.tensor([4]), torch.tensor([0]), torch.tensor([5])
    assert torch.equal(original(batch, latent, row, first, ahead)[2][0], batch.actions[4, :HORIZON])


def fit(method, batch, latent, steps=150):
    optimizer = torch.optim.Adam(method._proposal.parameters(), lr=3e-3)
    for position in range(steps):
        losses = method.losses(batch, latent, position)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    return losses


@pytest.mark.parametrize("network", [None, InverseModel], ids=["attention", "inverse"])
def test_it_learns_far_more_than_the_mean(network):
    method, batch, latent = point_method(network)
    before = method.validate([batch], lambda _: latent)
    assert before["val_action_loss"] == pytest.approx(before["val_mean_action_loss"]), "untrained it is the mean"
    losses = fit(method, batch, latent)
    assert losses["action_loss"] < 0.5 * losses["mean_action_loss"]
    after = method.validate([batch], lambda _: latent)
    assert after["val_action_loss"] < 0.5 * after["val_mean_action_loss"] == 0.5 * before["val_mean_action_loss"]


def test_a_proposal_that_remembers_sees_every_frame_in_one_epoch_and_comes_back_with_the_model(base, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        looked_up = ("method=proposal", "proposal=neighbors", "training.max_batches=null")
        trainer = run(tmp_path / "run", *STATE, *looked_up, f"ckpt_path={base}")
    assert trainer.epoch == 1 and "no weights to train" in caplog.text
    data = trainer.train_data
    seen = {
        (t, s + data.frameskip * f)
        for t, s in zip(data.trajectory.tolist(), data.start.tolist(), strict=True)
        for f in range(data.sample_frames)
    }
    assert trainer.model.proposal.num_frames == len(seen)
    sizes = train_config(*STATE, run_dir="r").env.sizes
    model, _ = load_for_planning(read_checkpoint(trainer.folder), sizes, EncoderConfig(), torch.device("cpu"))
    start, goal = (latent_of(3, 1, model=model, seed=seed) for seed in (1, 2))
    found = model.propose(start, goal, 4)
    assert found.shape[:2] == (3, 4) and torch.equal(found, trainer.model.propose(start, goal, 4))
    assert torch.equal(found[:, 0], model.propose(start, goal)[:, 0]) and not torch.equal(found[:, 0], found[:, 1])


def test_the_goal_weight_finds_the_way_where_the_actions_of_the_data_say_nothing():
    ends = {}
    for weight in (1e-9, 3.0):
        method, batch, latent = point_method(goal_weight=weight)
        unrelated = dataclasses.replace(batch, actions=batch.actions.flip(0))
        model = method.context.model
        model.requires_grad_(False)
        model.proposal.requires_grad_(True)
        before = weights(model)
        losses = fit(method, unrelated, latent)
        ends[weight] = losses["goal_loss"].item()
        assert losses["loss"].item() == pytest.approx((losses["action_loss"] + weight * losses["goal_loss"]).item())
        assert changed(before, weights(model)) == {"proposal"}
    assert ends[3.0] < 0.25 * ends[1e-9]


def test_only_the_network_changes_and_the_rest_is_saved_bit_for_bit(base, tmp_path):
    trainer = run(tmp_path / "run", *STATE, *METHOD, f"ckpt_path={base}", "training.epochs=1", "method.goal_weight=0.1")
    parent, child = frozen_tensors(base), frozen_tensors(trainer.folder)
    assert parent.keys() == child.keys() and all(torch.equal(parent[name], child[name]) for name in parent)
    found = read_checkpoint(trainer.folder)
    assert found.tensors["proposal.head.weight"].any()
    assert found.about["parent_sha256"] == header(found.path)["parent_sha256"] is not None
    assert not any(p.requires_grad for n, p in trainer.model.named_parameters() if not n.startswith("proposal."))
    lines = without_times(trainer.folder / "logs.json")
    assert {"loss", "action_loss", "mean_action_loss", "goal_loss"} <= lines[0].keys()
    assert {"val_action_loss", "val_mean_action_loss", "val_loss"} <= lines[-1].keys()


def test_images_and_a_decoder_are_left_alone_too(of_images, tmp_path):
    trainer = run(tmp_path / "run", *METHOD, f"ckpt_path={of_images}", "training.epochs=1")
    parent, child = frozen_tensors(of_images), frozen_tensors(trainer.folder)
    assert parent.keys() == child.keys() and all(torch.equal(parent[name], child[name]) for name in parent)
    sizes = train_config(*STATE, run_dir="r").env.sizes
    model, _ = load_for_planning(read_checkpoint(trainer.folder), sizes, EncoderConfig(), torch.device("cpu"))
    for name, tensor in model.proposal.state_dict().items():
        assert torch.equal(tensor, trainer.model.proposal.state_dict()[name])


def test_it_is_trained_further_and_other_methods_carry_it_on(base, tmp_path, caplog):
    first = run(tmp_path / "first", *STATE, *METHOD, f"ckpt_path={base}", "training.epochs=1")
    again = build(tmp_path / "again", *STATE, "method=proposal", f"ckpt_path={first.folder}", "training.epochs=1")
    assert not changed(weights(first.model), weights(again.model)), "sizes and weights are those of the checkpoint"
    again.fit()
    assert changed(weights(first.model), weights(again.model)) == {"proposal"}
    with caplog.at_level(logging.WARNING):
        tuned = run(tmp_path / "tuned", *STATE, "method=adversarial", f"ckpt_path={again.folder}", "training.epochs=1")
    assert changed(weights(again.model), weights(tuned.model)) == {"predictor", "action_encoder"}
    assert "proposal stays as it is" not in caplog.text, "the latents are as they were"
    assert read_checkpoint(tuned.folder).config["proposal"]["width"] == 16
    assert read_checkpoint(tuned.folder).optional_parts == ["proposal"]


def test_a_network_whose_latents_move_is_reported(tmp_path, caplog):
    moving = (*STATE, "proprio_encoder=proprio", "training.epochs=1")
    base = run(tmp_path / "base", *moving)
    net = run(tmp_path / "net", *moving, *METHOD, f"ckpt_path={base.folder}")
    assert "proposal stays as it is" not in caplog.text
    with caplog.at_level(logging.WARNING):
        build(tmp_path / "tuned", *moving, f"ckpt_path={net.folder}")
    assert "proposal stays as it is while proprio_encoder changes" in caplog.text


def test_interrupted_at_every_step_it_ends_bit_for_bit_the_same(base, tmp_path):
    saving = (
        "training.save_every_x_batch=2",
        "training.max_batches=3",
        "proposal.dropout=0.1",
        "method.goal_weight=0.1",
    )
    overrides = (*STATE, *METHOD, *saving, f"ckpt_path={base}", "training.num_reconstruct_samples=0")
    run(tmp_path / "whole", *overrides)
    for after in range(4):
        assert interrupt(build(tmp_path / "run", *overrides), after)
        torch.manual_seed(after)  # another process has another state
    run(tmp_path / "run", *overrides)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.pairs=0"], r"method\.pairs=0 must be a whole number, at least 1"),
        (["method.goal_weight=-1"], r"method\.goal_weight=-1 must be a number, at least 0"),
        (["training.proposal_lr=0"], r"training\.proposal_lr=0 must be a number, above 0"),
        (["proposal.horizon=0"], r"proposal\.horizon=0 must be a whole number, at least 1"),
        (["model.train_predictor=true"], r"model\.train_predictor=true excludes method=proposal"),
        (
            ["proposal.horizon=9"],
            r"N=5: a sample of N \+ num_hist = \d frames is shorter than the 10 .* or lower method\.farthest",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(base, tmp_path, overrides, message):
    with pytest.raises(Exception, match=message) as caught:
        build(tmp_path / "run", *STATE, *METHOD, *overrides, f"ckpt_path={base}")
    assert not (tmp_path / "run" / "hydra.yaml").exists()
    assert isinstance(caught.value, ValueError) or isinstance(caught.value.__cause__, ValueError)


def test_an_encoder_cannot_be_trained_beside_it(of_images, tmp_path):
    changes = ("model.train_encoder=true", f"ckpt_path={of_images}")
    with pytest.raises(ValueError, match=r"train_encoder=true"):
        build(tmp_path / "run", *METHOD, *changes)


def test_it_needs_a_trained_model(tmp_path):
    with pytest.raises(
        ValueError, match=r"method=proposal proposes actions for a trained model, and ckpt_path=\S+ holds"
    ):
        build(tmp_path / "run", *STATE, *METHOD)


def test_the_second_term_needs_a_predictor():
    model = point_model()
    model.predictor = None
    with pytest.raises(ValueError, match=r"method\.goal_weight=0\.5 needs a rollout, .* set method\.goal_weight=0"):
        ProposalTraining(goal_weight=0.5).setup(TrainingContext(model, None, None, FRAMESKIP, 0, None))


def test_its_settings_exist_only_where_they_have_an_effect():
    config = composed("method=offline", run_dir="r")
    assert "proposal" not in config and "proposal_lr" not in config["training"]
    chosen = composed("method=proposal", run_dir="r")
    assert chosen["model"]["train_predictor"] is False
    assert json.dumps(chosen["proposal"]) == json.dumps(
        OmegaConf.to_container(OmegaConf.load("conf/proposal/attention.yaml"))
    )
