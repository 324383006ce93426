"""The proposal network as a part of a model: what it maps, and how checkpoints carry it."""

import logging

import pytest
import torch

from models.architecture import Architecture
from models.build import build_world_model
from models.checkpoints.command import main as checkpoint_tool
from models.checkpoints.convert import convert
from models.checkpoints.loading import EncoderConfig, load_for_planning, load_weights
from models.checkpoints.native import read_checkpoint
from models.checkpoints.own_file import write_tensors
from models.checkpoints.stored_architecture import settle_architecture, stored_architecture
from models.checkpoints.summary import summarise
from models.latent import Latent
from models.networks.initnet import InitNet
from tests.builders import latent_of, option, wall_architecture, wall_model_directory
from utils.env_sizes import EnvSizes

SIZES = EnvSizes(env_action_dim=2, proprio_dim=2, state_dim=2)
NARROW = {"width": 16, "depth": 1, "heads": 2, "dim_head": 8, "mlp_dim": 16}
CPU = torch.device("cpu")


def network(**changes):
    return option("proposal", "attention", **NARROW, **changes)


@pytest.fixture
def with_one(tmp_path):
    return wall_model_directory(tmp_path / "with", proposal=network(horizon=3))


@pytest.fixture
def without(tmp_path):
    return wall_model_directory(tmp_path / "without")


def wake(net):
    """Replace the zeros of an untrained head."""
    torch.nn.init.normal_(net.head.weight)
    return net


@pytest.mark.parametrize(("patches", "width"), [(196, 384), (16, 32), (1, 2)], ids=["dino", "small", "state"])
def test_it_proposes_blocks_for_the_latents_of_every_encoder(patches, width):
    architecture = wall_architecture(proposal=network(horizon=4))
    if patches == 196:
        architecture |= {"encoder": option("encoder", "dino", weights="random"), "img_size": 224, "has_decoder": False}
    elif patches == 1:
        architecture |= {"encoder": option("encoder", "state"), "has_decoder": False}
    model = build_world_model(Architecture.from_dict(architecture), *SIZES).eval()
    assert (model.layout.num_patches, model.layout.visual_dim) == (patches, width)
    start, goal = (latent_of(3, 1, model=model, seed=seed) for seed in (1, 2))
    assert not model.propose(start, goal)[:, 0].any(), "untrained it proposes the mean action"
    wake(model.proposal)
    proposed = model.propose(start, goal)[:, 0]
    assert proposed.shape == (3, 4, 10)
    assert torch.allclose(model.propose(start[1:2], goal[1:2])[:, 0], proposed[1:2], atol=1e-5), "rows are independent"
    assert not torch.allclose(model.propose(goal, start)[:, 0], proposed)


@pytest.mark.parametrize("part", ["visual", "proprio"])
def test_every_part_of_start_and_goal_reaches_every_block(part):
    net = wake(InitNet(3, 6, 2, 4, horizon=2, **NARROW))
    start, goal = (
        Latent(torch.randn(1, 1, 3, 6, requires_grad=True), torch.randn(1, 1, 2, requires_grad=True)) for _ in range(2)
    )
    proposed = net(start, goal)
    for block in range(2):
        wanted = [getattr(start, part), getattr(goal, part)]
        for gradient in torch.autograd.grad(proposed[0, block].sum(), wanted, retain_graph=True):
            assert gradient.abs().amax(-1).min() > 0


def test_planners_get_full_precision_whatever_the_network_computes_in(with_one):
    model, _ = load_for_planning(read_checkpoint(with_one), SIZES, EncoderConfig(), CPU)
    start = latent_of(2, 1, model=model)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.proposal(start, start).dtype == torch.bfloat16
        assert model.propose(start, start)[:, 0].dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"horizon": 0}, r"proposal\.horizon must be at least 1, got 0"),
        ({"depth": 0}, r"proposal\.depth must be at least 1, got 0"),
        ({"dropout": 1.0}, r"proposal\.dropout must be in \[0, 1\), got 1\.0"),
    ],
)
def test_sizes_that_mean_nothing_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        InitNet(1, 2, 2, 4, **given)


def test_a_model_without_one_says_how_to_get_one(without):
    model, _ = load_for_planning(read_checkpoint(without), SIZES, EncoderConfig(), CPU)
    assert model.proposal is None
    start = latent_of(1, 1, model=model)
    with pytest.raises(ValueError, match=r"^planner\.sample_type=proposal needs .* python train\.py method=proposal"):
        model.propose(start, start)[:, 0]


def test_a_checkpoint_gives_back_the_same_network_ready_to_plan(with_one):
    checkpoint = read_checkpoint(with_one)
    assert stored_architecture(checkpoint) == Architecture.from_dict(wall_architecture(proposal=network(horizon=3)))
    checkpoint.tensors["proposal.head.weight"].normal_()
    model, architecture = load_for_planning(checkpoint, SIZES, EncoderConfig(), CPU)
    assert architecture.proposal.settings["horizon"] == model.proposal.horizon == 3
    assert not model.proposal.training and not any(p.requires_grad for p in model.proposal.parameters())
    for name, tensor in model.proposal.state_dict().items():
        assert torch.equal(tensor, checkpoint.tensors[f"proposal.{name}"])


def test_a_checkpoint_without_one_has_the_architecture_that_it_always_had(without):
    assert stored_architecture(read_checkpoint(without)).as_dict() == wall_architecture()


def test_weights_or_config_alone_are_no_network(with_one):
    checkpoint = read_checkpoint(with_one)
    del checkpoint.config["proposal"]
    assert stored_architecture(checkpoint).proposal is None
    model = build_world_model(Architecture.from_dict(wall_architecture(proposal=network(horizon=5))), *SIZES)
    assert load_weights(model, checkpoint) == ["proposal"], "tensors of an unknown network are not taken for it"
    checkpoint = read_checkpoint(with_one)
    for name in [name for name in checkpoint.tensors if name.startswith("proposal.")]:
        del checkpoint.tensors[name]
    assert stored_architecture(checkpoint).proposal is None


def test_a_damaged_network_is_refused(with_one):
    checkpoint = read_checkpoint(with_one)
    del checkpoint.tensors["proposal.head.bias"]
    with pytest.raises(ValueError, match=r"proposal\.head\.bias is missing"):
        load_for_planning(checkpoint, SIZES, EncoderConfig(), CPU)


def test_an_unknown_class_is_refused(with_one):
    checkpoint = read_checkpoint(with_one)
    checkpoint.config["proposal"] = {"_target_": "trap_module.Part"}
    with pytest.raises(
        ValueError, match=r"proposal\._target_ is 'trap_module\.Part'; known are models\.networks\.initnet\.InitNet"
    ):
        stored_architecture(checkpoint)


def test_one_is_added_to_a_model_that_has_none(without):
    config = Architecture.from_dict(wall_architecture(proposal=network(horizon=4)))
    assert settle_architecture(config, {"proposal"}, read_checkpoint(without)) == config


def test_one_is_added_to_a_model_of_the_earlier_release_and_never_mixed_up_with_its_own(shared_golden, golden):
    original = read_checkpoint(shared_golden("checkpoints/wall_h1"))
    original.tensors["initnet.head.weight"] = torch.ones(1)
    original.config["proposal"] = {"_target_": "models.networks.initnet.InitNet"}
    settled = settle_architecture(Architecture.from_dict(wall_architecture(proposal=network())), set(), original)
    assert settled.proposal.settings == network()
    assert stored_architecture(original).proposal is None
    narrow = {"embed_dim": 48, "depth": 2, "num_heads": 3, "weights": str(golden("dinov2_reduced.safetensors"))}
    model = build_world_model(settled.with_arguments("encoder", **narrow), *SIZES)
    assert "proposal" in load_weights(model, original)
    start = latent_of(1, 1, model=model)
    assert model.propose(start, start)[:, 0].shape == (1, 5, model.action_encoder.in_dim)


def test_one_that_is_there_stays_and_may_not_be_contradicted(with_one):
    config = Architecture.from_dict(wall_architecture(proposal=network(horizon=4)))
    settled = settle_architecture(config, {"proposal"}, read_checkpoint(with_one))
    assert settled.proposal.settings["horizon"] == 3
    with pytest.raises(ValueError, match=r"proposal\.horizon=4 was asked for, the checkpoint has proposal\.horizon=3"):
        settle_architecture(config, {"proposal.horizon"}, read_checkpoint(with_one))


def test_inspect_and_convert_know_it(with_one, tmp_path, capsys):
    weights = with_one / "checkpoints" / "model_latest.safetensors"
    assert summarise(weights).parts["proposal"].count() > 0
    convert(weights, tmp_path / "copy")
    assert stored_architecture(read_checkpoint(tmp_path / "copy")).proposal.settings["horizon"] == 3
    with pytest.raises(SystemExit) as code:
        checkpoint_tool(["inspect", str(with_one)])
    assert code.value.code == 0
    assert "proposal: " in capsys.readouterr().out


def test_the_way_back_to_the_earlier_release_leaves_it_out_and_says_so(shared_golden, tmp_path, caplog):
    original = shared_golden("checkpoints/wall_h1") / "checkpoints" / "model_latest.pth"
    convert(original, tmp_path / "ours")
    ours = read_checkpoint(tmp_path / "ours")
    path = tmp_path / "more" / "model_latest.safetensors"
    path.parent.mkdir()
    more = ours.tensors | {"proposal.head.bias": torch.ones(10)}
    write_tensors(path, more, ours.epoch, ours.about)
    with caplog.at_level(logging.WARNING):
        convert(path, tmp_path / "back.pth", "dino-wm", original)
    assert "proposal is left out" in caplog.text
    assert (tmp_path / "back.pth").read_bytes() == _copied(tmp_path, ours.path, original)


def _copied(tmp_path, path, original):
    convert(path, tmp_path / "plain.pth", "dino-wm", original)
    return (tmp_path / "plain.pth").read_bytes()
