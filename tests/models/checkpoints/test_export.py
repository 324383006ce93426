"""``python -m models.checkpoint convert --to hub`` and ``--to stable-worldmodel``."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from models.checkpoints.command import main
from models.checkpoints.convert import convert
from models.checkpoints.loading import EncoderConfig, load_for_planning
from models.checkpoints.native import read_any, read_checkpoint, weights_file
from models.checkpoints.own_file import write_tensors
from models.checkpoints.stored_architecture import stored_architecture
from models.foreign.facts import Facts
from models.foreign.inert_pickle import CheckpointError
from models.foreign.layouts import recognise
from tests.builders import WALL_NORMALIZER, jepa_wms_file, numbers, wall_model_directory
from utils.env_sizes import EnvSizes

WALL = EnvSizes(env_action_dim=2, proprio_dim=2, state_dim=2)


@pytest.fixture
def run(tmp_path) -> Path:
    """A model directory of ours."""
    folder = wall_model_directory(tmp_path / "run")
    found = read_checkpoint(folder)
    write_tensors(found.path, found.tensors, found.epoch, found.about | {"parent": "/home/me/secret"})
    return folder


@pytest.fixture
def folder(run, tmp_path) -> Path:
    convert(weights_file(run), tmp_path / "hub", "hub", license_name="mit")
    return tmp_path / "hub"


def test_a_hub_folder_is_read_back_as_the_model_that_it_was_made_from(run, folder):
    found, expected = read_checkpoint(folder), read_checkpoint(run)
    assert stored_architecture(found) == stored_architecture(expected)
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())
    assert found.epoch == expected.epoch
    assert found.about["normalizer"] == WALL_NORMALIZER


def test_a_hub_folder_plans_as_it_is(folder):
    checkpoint = read_checkpoint(folder)
    model, _ = load_for_planning(checkpoint, WALL, EncoderConfig(), torch.device("cpu"))
    assert model.predictor is not None
    assert checkpoint.about["normalizer"] == WALL_NORMALIZER


def test_its_config_names_nothing_to_call_and_no_path_of_this_machine(folder):
    text = (folder / "config.json").read_text()
    assert "_target_" not in text
    assert "secret" not in text
    assert json.loads(text)["architecture"]["env"] == {"name": "wall"}


def test_what_a_folder_says_of_where_it_was_made_is_not_believed(folder):
    """A file with "classes", say, would be taken for one of DINO-WM."""
    config = json.loads((folder / "config.json").read_text())
    config["about"] |= {"classes": [], "parent": "/etc/passwd"}
    (folder / "config.json").write_text(json.dumps(config))
    found = read_checkpoint(folder)
    assert not found.is_dino_wm
    assert "parent" not in found.about


def test_facts_that_a_folder_says_itself_are_refused(folder):
    with pytest.raises(CheckpointError, match=r"foreign\.heads has no effect: .*hub says it itself"):
        read_checkpoint(folder, facts=Facts(heads=2))


def test_its_card_is_one_that_hubs_read(folder):
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "mit"
    assert card.data.pipeline_tag == "robotics"
    assert "world-model" in card.data.tags


def test_writing_it_again_changes_nothing_and_other_content_is_left_alone(run, folder):
    assert "is there already" in convert(weights_file(run), folder, "hub", license_name="mit")
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json exists and holds something else"):
        convert(weights_file(run), folder, "hub", license_name="mit")


def test_a_class_in_it_that_is_none_of_ours_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["architecture"]["predictor"]["class"] = "os.system"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"predictor\._target_ is 'os\.system'; known are"):
        stored_architecture(read_checkpoint(folder))


def test_a_later_version_is_named(folder):
    config = json.loads((folder / "config.json").read_text()) | {"version": 2}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="is of version 2, this project reads 1"):
        read_checkpoint(folder)


def test_the_command_exports_and_inspects(run, tmp_path, capsys):
    main(["convert", str(run), str(tmp_path / "out"), "--to", "hub"])
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(tmp_path / "out")])
    assert ended.value.code == 0
    assert "layout          hub folder" in capsys.readouterr().out


def small_stable_worldmodel(folder: Path, transformers: int) -> Path:
    """Their files, by hand: a token is [12 of the encoder | 2 proprio | 3 action] wide, 4 patches, 2 frames."""
    block = {
        "norm1.weight": (12,), "norm1.bias": (12,), "norm2.weight": (12,), "norm2.bias": (12,),
        "mlp.fc1.weight": (48, 12), "mlp.fc1.bias": (48,), "mlp.fc2.weight": (12, 48), "mlp.fc2.bias": (12,),
        "layer_scale1.lambda1": (12,), "layer_scale2.lambda1": (12,),
    }  # fmt: skip
    parts = [*(f"{letter}_proj" for letter in "qkvo")]
    if transformers == 4:
        parts = [*(f"attention.{word}" for word in ("query", "key", "value")), "output.dense"]
    for part in parts:
        block |= {f"attention.{part}.weight": (12, 12), f"attention.{part}.bias": (12,)}
    shapes = {
        "embeddings.cls_token": (1, 1, 12), "embeddings.mask_token": (1, 12),
        "embeddings.position_embeddings": (1, 1370, 12), "layernorm.weight": (12,), "layernorm.bias": (12,),
        "embeddings.patch_embeddings.projection.weight": (12, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": (12,),
        **{f"encoder.layer.0.{name}": shape for name, shape in block.items()},
    }  # fmt: skip
    shapes = {f"backbone.{name}": shape for name, shape in shapes.items()}
    layer = {
        "0.norm.weight": (17,), "0.norm.bias": (17,), "0.to_qkv.weight": (24, 17), "0.to_out.0.weight": (17, 8),
        "0.to_out.0.bias": (17,), "1.net.0.weight": (17,), "1.net.0.bias": (17,), "1.net.1.weight": (8, 17),
        "1.net.1.bias": (8,), "1.net.4.weight": (17, 8), "1.net.4.bias": (17,),
    }  # fmt: skip
    shapes |= {f"predictor.transformer.layers.0.{name}": shape for name, shape in layer.items()}
    shapes |= {f"predictor.transformer.norm.{name}": (17,) for name in ("weight", "bias")}
    shapes["predictor.pos_embedding"] = (1, 8, 17)
    for part, inputs, width in (("proprio", 2, 2), ("action", 10, 3)):
        shapes |= {f"extra_encoders.{part}.patch_embed.weight": (width, inputs, 1)}
        shapes |= {f"extra_encoders.{part}.patch_embed.bias": (width,)}
    tensors = {name: numbers(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}
    frame = torch.arange(8) // 4
    tensors["predictor.transformer.layers.0.0.bias"] = (frame[:, None] >= frame).float()[None, None]
    folder.mkdir()
    torch.save(tensors, folder / "weights.pt")
    config = {"history_size": 2, "predictor": {"num_patches": 4, "num_frames": 2, "heads": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("transformers", [4, 5])
def test_what_came_from_stable_worldmodel_goes_back_key_by_key(tmp_path, transformers):
    source = small_stable_worldmodel(tmp_path / "theirs", transformers)
    convert(source, tmp_path / "ours")
    path = weights_file(tmp_path / "ours")
    convert(path, tmp_path / "again", "stable-worldmodel", transformers=transformers)
    expected = torch.load(source / "weights.pt", weights_only=True)
    found = torch.load(tmp_path / "again/weights.pt", weights_only=True)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_its_config_says_what_theirs_does(tmp_path, shared_golden):
    folder = shared_golden("layouts/stable_worldmodel")
    convert(folder, tmp_path / "again", "stable-worldmodel")
    read = [json.loads((each / "config.json").read_text()) for each in (tmp_path / "again", folder)]
    assert read[0] == read[1]
    found, expected = (read_any(each) for each in (tmp_path / "again", folder))
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())
    assert found.about["statistics"] == expected.about["statistics"]


def test_models_of_which_they_would_compute_something_else_are_refused(run, tmp_path):
    with pytest.raises(CheckpointError, match=r"stable-worldmodel computes with encoder\._target_=.*, this model with"):
        convert(weights_file(run), tmp_path / "out", "stable-worldmodel")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_several_weights_files_asks_for_one(tmp_path):
    source = small_stable_worldmodel(tmp_path / "theirs", 5)
    (source / "images.tar").write_bytes(b"data of another kind")
    assert recognise(source) is not None
    shutil.copy(source / "weights.pt", source / "weights_epoch_2.pt")
    with pytest.raises(CheckpointError, match=r"holds 2 weights files .*: name one"):
        recognise(source)
    assert recognise(source / "weights_epoch_2.pt") is not None


@pytest.fixture
def from_jepa_wms(tmp_path) -> Path:
    """A model directory of ours that was made from a file of jepa-wms."""
    facts = Facts(heads=2)
    convert(jepa_wms_file(tmp_path / "dino_wm_wall.pth.tar", proprio_inputs=2), tmp_path / "adopted", facts=facts)
    return tmp_path / "adopted"


def test_what_dino_wm_would_compute_otherwise_is_not_written_for_it(from_jepa_wms, tmp_path):
    with pytest.raises(CheckpointError, match=r"DINO-WM computes with encoder\.pixels_per_patch=16, this"):
        convert(weights_file(from_jepa_wms), tmp_path / "out.pth", "dino-wm", like=tmp_path / "dino_wm_wall.pth.tar")


def test_units_of_another_program_go_into_a_hub_folder(from_jepa_wms, tmp_path):
    convert(weights_file(from_jepa_wms), tmp_path / "hub", "hub")
    found, expected = read_checkpoint(tmp_path / "hub"), read_checkpoint(from_jepa_wms)
    assert found.about["statistics"] == expected.about["statistics"]
    assert found.config["env"] == expected.config["env"] == {"name": "wall", "env_action_dim": 2}
