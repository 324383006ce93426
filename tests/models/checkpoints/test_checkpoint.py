import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from datasets.units.normalizer import Normalizer
from models.architecture import Architecture
from models.build import build_world_model
from models.checkpoints.loading import (
    EncoderConfig,
    check_environment,
    load_for_planning,
    load_weights,
    stored_normalizer,
)
from models.checkpoints.native import (
    CheckpointError,
    parentage,
    read_checkpoint,
    read_weights_file,
    weights_file,
    write_model_config,
)
from models.checkpoints.own_file import write_checkpoint
from models.checkpoints.stored_architecture import settle_architecture, stored_architecture
from tests.builders import WALL_NORMALIZER, option, wall_architecture, wall_model, wall_model_directory
from utils.env_sizes import EnvSizes
from utils.schema import Component

WALL = EnvSizes(env_action_dim=2, proprio_dim=2, state_dim=2)
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return wall_model_directory(tmp_path / "run")


def weights(folder):
    return folder / "checkpoints" / "model_latest.safetensors"


def spoil(folder, change):
    """Rewrite the tensors of a checkpoint after ``change`` worked on the dict of them."""
    tensors = load_file(weights(folder))
    change(tensors)
    about = {"format": "1", "epoch": 3, "normalizer": WALL_NORMALIZER}
    save_file(tensors, weights(folder), metadata={"world_model": json.dumps(about)})


def test_every_tensor_survives_bit_for_bit(folder):
    written, read = wall_model(), wall_model(seed=1)
    assert load_weights(read, read_checkpoint(folder)) == []
    state = read.state_dict()
    for name, tensor in written.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_what_is_said_about_a_model_survives(folder):
    checkpoint = read_checkpoint(folder)
    assert checkpoint.epoch == 3
    assert checkpoint.about["validation"] == [1, 3]
    assert stored_normalizer(checkpoint, WALL).to_dict() == Normalizer.from_dict(WALL_NORMALIZER).to_dict()
    assert checkpoint.config["num_hist"] == 1


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    paths = [tmp_path / place / "model_1.safetensors" for place in ("here", "there")]
    about = [{"b": 1, "a": [0.1]}, {"a": [0.1], "b": 1}]
    for path, facts in zip(paths, about, strict=True):
        write_checkpoint(path, wall_model(), 1, facts, with_encoder=True)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    write_checkpoint(paths[1], wall_model(), 2, about[0], with_encoder=True)
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_without_its_encoder_a_checkpoint_leaves_the_encoder_alone(tmp_path):
    model = wall_model()
    write_checkpoint(tmp_path / "checkpoints/model_latest.safetensors", model, 1, {}, with_encoder=False)
    write_model_config(tmp_path, wall_architecture())
    checkpoint = read_checkpoint(tmp_path)
    assert not [name for name in checkpoint.tensors if name.startswith("encoder.")]
    other = wall_model(seed=1)
    other.encoder.mean.fill_(5.0)
    assert load_weights(other, checkpoint) == ["encoder"]
    assert (other.encoder.mean == 5).all()
    assert torch.equal(other.predictor.head.weight, model.predictor.head.weight)


def test_a_failing_write_leaves_the_old_file(folder, monkeypatch):
    before = weights(folder).read_bytes()
    monkeypatch.setattr("utils.tensor_files.save_file", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(weights(folder), wall_model(seed=1), 4, {}, with_encoder=True)
    assert weights(folder).read_bytes() == before
    assert [path.name for path in weights(folder).parent.iterdir()] == ["model_latest.safetensors"]


def test_an_epoch_is_read_by_its_number(folder):
    wall_model_directory(folder, epoch=2, seed=5)
    assert weights_file(folder, 2).name == "model_2.safetensors"
    name = "predictor.head.weight"
    expected = wall_model(seed=5).state_dict()[name]
    assert torch.equal(read_checkpoint(folder, 2).tensors[name], expected)
    assert not torch.equal(read_checkpoint(folder).tensors[name], expected)


def test_ours_wins_over_a_pickle(folder):
    (folder / "checkpoints/model_latest.pth").write_bytes(b"not even a zip file")
    assert weights_file(folder).suffix == ".safetensors"


def test_a_missing_checkpoint_names_what_is_there(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoints/model_9\.safetensors or \.pth; found model_latest"):
        read_checkpoint(folder, 9)
    with pytest.raises(CheckpointError, match=r"ckpt_path=.*nowhere.*no checkpoint at all"):
        read_checkpoint(tmp_path / "nowhere")


def test_a_missing_config_is_named(folder):
    (folder / "hydra.yaml").unlink()
    with pytest.raises(ValueError, match=r"hydra\.yaml cannot be read"):
        read_checkpoint(folder)


DAMAGES = {
    "empty": lambda raw: b"",
    "cut in the header": lambda raw: raw[:20],
    "cut in the data": lambda raw: raw[:-100],
    "one byte short": lambda raw: raw[:-1],
    "text": lambda raw: b"this is no checkpoint at all, but some text that is long enough",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_refused_by_name(folder, damage):
    weights(folder).write_bytes(damage(weights(folder).read_bytes()))
    with pytest.raises(
        CheckpointError, match=r"model_latest\.safetensors is (truncated or not a safetensors file|damaged)"
    ):
        read_checkpoint(folder)


@pytest.mark.parametrize("metadata", [None, {"world_model": "null"}, {"world_model": '{"format": "99"}'}], ids=str)
def test_safetensors_of_others_are_refused(folder, metadata):
    save_file(load_file(weights(folder)), weights(folder), metadata=metadata)
    with pytest.raises(CheckpointError, match="was not written by this project"):
        read_checkpoint(folder)


NAME = "predictor.head.weight"
SPOILT = {
    "missing": (lambda tensors: tensors.pop(NAME), r"predictor\.head\.weight is missing"),
    "unknown": (lambda tensors: tensors.update({"predictor.x": torch.ones(1)}), r"predictor\.x is unknown"),
    "not finite": (lambda tensors: tensors[NAME][0, 0].fill_(float("nan")), r"predictor\.head\.weight is not finite"),
    "infinite": (lambda tensors: tensors[NAME][0, 0].fill_(float("inf")), r"predictor\.head\.weight is not finite"),
    "misshapen": (
        lambda tensors: tensors.update({NAME: torch.ones(2, 3)}),
        r"predictor\.head\.weight has shape \[2, 3\] instead of \[52, 8\]",
    ),
}


@pytest.mark.parametrize(("change", "message"), SPOILT.values(), ids=SPOILT)
def test_a_tensor_that_does_not_fit_is_named_with_its_file(folder, change, message):
    spoil(folder, change)
    with pytest.raises(CheckpointError, match=message) as error:
        load_weights(wall_model(), read_checkpoint(folder))
    assert str(weights(folder)) in str(error.value)


def test_all_that_is_wrong_is_listed_at_once(folder):
    def change(tensors):
        tensors.pop("predictor.head.bias")
        tensors["decoder.more"] = torch.ones(1)
        tensors["action_encoder.patch_embed.bias"][0] = float("inf")

    spoil(folder, change)
    with pytest.raises(CheckpointError) as error:
        load_weights(wall_model(), read_checkpoint(folder))
    for name in ("predictor.head.bias", "decoder.more", "action_encoder.patch_embed.bias"):
        assert name in str(error.value)


def test_a_finetuned_model_names_its_parent(folder):
    found = parentage(read_checkpoint(folder))
    assert found["parent"] == str(weights(folder))
    assert len(found["parent_sha256"]) == 64
    assert parentage(None) == {"parent": None, "parent_sha256": None}


def test_a_config_is_written_as_plain_data(tmp_path):
    write_model_config(tmp_path, {"num_hist": 3, "env": {"name": "wall"}})
    assert OmegaConf.load(tmp_path / "hydra.yaml") == {"num_hist": 3, "env": {"name": "wall"}}


def test_a_model_loaded_for_planning_is_frozen_and_in_eval_mode(folder):
    model, architecture = load_for_planning(read_checkpoint(folder), WALL, EncoderConfig(), CPU)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model.predictor.head.weight, wall_model().predictor.head.weight)
    assert architecture.frameskip == 5


@pytest.mark.parametrize("part", ["predictor", "action_encoder", "proprio_encoder"])
def test_planning_needs_every_part_of_the_dynamics(folder, part):
    def change(tensors):
        for name in [name for name in tensors if name.startswith(f"{part}.")]:
            tensors.pop(name)

    spoil(folder, change)
    with pytest.raises(CheckpointError, match=f"has no {part}: it cannot plan"):
        load_for_planning(read_checkpoint(folder), WALL, EncoderConfig(), CPU)


def test_a_decoder_that_was_never_trained_is_left_out(folder):
    def change(tensors):
        for name in [name for name in tensors if name.startswith("decoder.")]:
            tensors.pop(name)

    spoil(folder, change)
    assert load_for_planning(read_checkpoint(folder), WALL, EncoderConfig(), CPU)[0].decoder is None


def test_a_model_of_another_environment_is_refused_with_both_names(folder):
    check_environment(read_checkpoint(folder), "wall")
    with pytest.raises(ValueError, match=r"env=pusht was asked for, but .* was trained on env=wall"):
        check_environment(read_checkpoint(folder), "pusht")


def test_encoder_weights_without_effect_are_an_error(folder):
    with pytest.raises(ValueError, match=r"encoder\.weights=mine\.pth has no effect"):
        load_for_planning(read_checkpoint(folder), WALL, EncoderConfig(weights="mine.pth"), CPU)


@pytest.fixture
def recorded(tmp_path, shared_golden):
    """A copy of a recorded DINO-WM model directory whose config can be changed; returns (folder, change)."""
    folder = tmp_path / "recorded"
    shutil.copytree(shared_golden("checkpoints/pusht_h3"), folder)
    folder.chmod(0o755)
    (folder / "hydra.yaml").chmod(0o644)

    def change(**values):
        config = OmegaConf.load(folder / "hydra.yaml")
        OmegaConf.save(OmegaConf.merge(config, values), folder / "hydra.yaml")

    return folder, change


def narrow(checkpoint):
    """The model that a recorded checkpoint describes, with a narrow encoder of drawn weights."""
    architecture = stored_architecture(checkpoint)
    sizes = {"embed_dim": 48, "depth": 1, "num_heads": 3}
    return build_world_model(architecture.with_arguments("encoder", **sizes, weights="random"), 2, 4, 7)


def test_a_shorter_history_than_the_checkpoint_was_built_for_takes_the_first_positions(recorded):
    folder, change = recorded
    change(num_hist=1)
    checkpoint = read_checkpoint(folder)
    model = narrow(checkpoint)
    assert load_weights(model, checkpoint) == ["encoder"]
    assert torch.equal(model.predictor.pos_embedding, checkpoint.tensors["predictor.pos_embedding"][:, :196])


def test_a_recorded_checkpoint_fills_every_part_it_brings(recorded):
    checkpoint = read_checkpoint(recorded[0])
    model = narrow(checkpoint)
    assert load_weights(model, checkpoint) == ["encoder"]
    state = model.state_dict()
    brought = [name for name in checkpoint.tensors if name in state]
    assert {name.split(".")[0] for name in brought} == {"predictor", "decoder", "action_encoder", "proprio_encoder"}
    assert all(torch.equal(state[name], checkpoint.tensors[name]) for name in brought)


@pytest.mark.parametrize(
    ("name", "width", "copied"),
    [("channel", 28, r"layers\.\d\.1\.net\.1\.bias"), ("global", 68, r"(?!pos_embedding).*")],
)
def test_a_recorded_checkpoint_gets_a_projector(recorded, name, width, copied):
    """With ``global`` a token is as wide as before, here 48 + 10 + 10, but a frame has one of them."""
    checkpoint = read_checkpoint(recorded[0])
    sizes = {"hidden": 16, "emb_dim": 8 if name == "channel" else 48}
    wanted = replace(
        Architecture.from_dict(wall_architecture()), projector=Component(option("projector", name, **sizes))
    )
    architecture = settle_architecture(wanted, {"projector", "has_decoder"}, checkpoint)
    architecture = replace(architecture, decoder=Component(option("decoder", "conv", width=4)))
    sizes = {"embed_dim": 48, "depth": 1, "num_heads": 3, "weights": "random"}
    model = build_world_model(architecture.with_arguments("encoder", **sizes), 2, 4, 7)
    assert model.layout.token_dim == width
    assert load_weights(model, checkpoint) == ["encoder", "predictor", "decoder", "projector"]
    state = model.state_dict()
    kept = {name for name in checkpoint.tensors if name in state and torch.equal(state[name], checkpoint.tensors[name])}
    assert {name for name in state if name.startswith(("action_encoder", "proprio_encoder"))} <= kept
    predictor = {name for name in state if name.startswith("predictor.")}
    expected = {name for name in predictor if re.fullmatch(rf"predictor\.(transformer\.)?{copied}", name)}
    assert expected and expected == predictor & kept


@pytest.fixture
def with_own_weights(tmp_path, golden, monkeypatch):
    """(model directory whose encoder reads a file of its own, that file); the hub's cache is empty."""
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    weights = shutil.copy(golden("dinov2_reduced.safetensors"), tmp_path / "mine.safetensors")
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 3}
    encoder = option("encoder", "dino", weights=str(weights), download=False, **sizes)
    architecture = wall_architecture(encoder=encoder, img_size=32, has_decoder=False)
    model = wall_model(architecture)
    about = {"normalizer": WALL_NORMALIZER, "encoder_sha256": model.encoder.weights_sha256}
    path = tmp_path / "run/checkpoints/model_latest.safetensors"
    write_checkpoint(path, model, 3, about, with_encoder=False)
    write_model_config(tmp_path / "run", {"env": {"name": "wall"}, **architecture})
    return tmp_path / "run", weights


def test_an_encoder_finds_the_file_it_was_trained_with(with_own_weights, caplog):
    model, _ = load_for_planning(read_checkpoint(with_own_weights[0]), WALL, EncoderConfig(), CPU)
    assert model.encoder.emb_dim == 48
    assert "SHA-256" not in caplog.text


def test_a_path_of_another_machine_is_not_insisted_on(with_own_weights):
    folder, weights = with_own_weights
    weights.unlink()
    with pytest.raises(InstantiationException, match=r"no DINOv2 weights at .*hub"):
        load_for_planning(read_checkpoint(folder), WALL, EncoderConfig(), CPU)


def test_other_weights_than_in_training_are_used_with_a_warning(with_own_weights, tmp_path, caplog):
    folder, weights = with_own_weights
    other = {name: tensor + 1 for name, tensor in load_file(weights).items()}
    save_file(other, tmp_path / "other.safetensors")
    encoder = EncoderConfig(weights=str(tmp_path / "other.safetensors"))
    model, _ = load_for_planning(read_checkpoint(folder), WALL, encoder, CPU)
    assert torch.equal(model.encoder.base_model.cls_token, other["cls_token"])
    assert "not the file that" in caplog.text


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"normalizer": [1]}, "normalizer in its world_model entry must be lists of numbers by name"),
        ({"validation": []}, "validation in its world_model entry must be a list of trajectory numbers, at least one"),
        ({"epoch": 10**400}, "is no readable JSON"),
        ({"epoch": -1}, "epoch in its world_model entry must be a whole number from 0"),
    ],
)
def test_a_header_that_says_something_impossible_is_one_line(tmp_path, about, words):
    text = json.dumps({"format": "1", "epoch": 3, **about})
    save_file({"predictor.x": torch.ones(1)}, tmp_path / "model_3.safetensors", metadata={"world_model": text})
    with pytest.raises(CheckpointError, match=rf"^\S*model_3\.safetensors: .*{words}") as caught:
        read_weights_file(tmp_path / "model_3.safetensors")
    assert "\n" not in str(caught.value)
