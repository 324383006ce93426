import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from models.checkpoints.config_file import read_model_config
from models.foreign.dino_wm import read_pickled_checkpoint
from models.foreign.dino_wm_config import translate_config

YAML = """
num_hist: 3
num_pred: 1
frameskip: 5
img_size: 64
concat_dim: 1
action_emb_dim: 10
proprio_emb_dim: 6
num_action_repeat: 1
num_proprio_repeat: 1
has_predictor: true
has_decoder: true
normalize_action: true
saved_folder: ${hydra:runtime.output_dir}
model: {_target_: models.visual_world_model.VWorldModel, image_size: '${img_size}'}
env:
  name: pusht
  dataset:
    _target_: os.system
    data_path: ${oc.env:DATASET_DIR}/pusht_noise
    normalize_action: ${normalize_action}
    transform: {_target_: datasets.img_transforms.default_transform, img_size: 64}
encoder: {_target_: models.dino.DinoV2Encoder, name: dinov2_vits14, feature_key: x_norm_patchtokens}
predictor: {_target_: models.vit.X, depth: 2, heads: 4, mlp_dim: 32, dropout: 0.1, emb_dropout: 0, pool: mean}
decoder: {_target_: models.vqvae.VQVAE, channel: 16, quantize: false}
"""


def tensors(num_hist: int = 3) -> dict[str, dict[str, torch.Tensor]]:
    """Shapes of the model that YAML describes; 4 x 4 patches, heads of 64."""
    predictor = {"pos_embedding": torch.empty(1, num_hist * 16, 40)}
    for layer in range(2):
        predictor[f"transformer.layers.{layer}.0.to_qkv.weight"] = torch.empty(3 * 4 * 64, 40)
        predictor[f"transformer.layers.{layer}.1.net.1.weight"] = torch.empty(32, 40)
    return {
        "predictor": predictor,
        "decoder": {},
        "action_encoder": {"patch_embed.weight": torch.empty(10, 10, 1)},
        "proprio_encoder": {"patch_embed.weight": torch.empty(6, 4, 1)},
    }


@pytest.fixture
def config(tmp_path) -> dict[str, Any]:
    (tmp_path / "hydra.yaml").write_text(YAML)
    return read_model_config(tmp_path / "hydra.yaml")


def without(config: dict[str, Any], key: str) -> dict[str, Any]:
    group, _, name = key.rpartition(".")
    if not group:
        return {k: v for k, v in config.items() if k != name}
    return {**config, group: {k: v for k, v in config[group].items() if k != name}}


@pytest.mark.parametrize(("name", "env", "num_hist"), [("pusht_h3", "pusht", 3), ("wall_h1", "wall", 1)])
def test_configs_of_the_original_trainer_are_understood(shared_golden, name, env, num_hist):
    folder = Path(shared_golden(f"checkpoints/{name}"))
    parts = read_pickled_checkpoint(folder / "checkpoints" / "model_latest.pth").parts
    found = translate_config(read_model_config(folder / "hydra.yaml"), parts, folder / "hydra.yaml")
    assert (found["env"], found["num_hist"], found["frameskip"], found["img_size"]) == (env, num_hist, 5, 224)
    assert found["encoder"] == {"name": "dinov2_vits14", "feature_key": "x_norm_patchtokens"}
    assert found["decoder"]["n_res_channel"] == 8
    assert found["predictor"] == {
        "depth": 2,
        "heads": 4,
        "mlp_dim": 64,
        "dim_head": 16,
        "dropout": 0.1,
        "emb_dropout": 0.0,
        "pool": "mean",
    }


def test_nothing_in_the_file_is_resolved_or_imported(config):
    assert config["env"]["dataset"]["_target_"] == "os.system"
    assert config["env"]["dataset"]["data_path"] == "${oc.env:DATASET_DIR}/pusht_noise"
    assert config["saved_folder"] == "${hydra:runtime.output_dir}"


def test_the_architecture_is_picked_out(config):
    found = translate_config(config, tensors())
    assert found["num_hist"] == 3
    assert found["env"] == "pusht"
    assert found["predictor"]["dim_head"] == 64  # not in the file
    assert found["decoder"] == {"channel": 16, "quantize": False}
    assert found["dataset"] == {"data_path": "${oc.env:DATASET_DIR}/pusht_noise", "normalize_action": True}
    assert "saved_folder" not in found


def test_plain_references_are_followed(config):
    assert translate_config({**config, "img_size": "${model.size}", "model": {"size": 64}})["img_size"] == 64


@pytest.mark.parametrize("value", ["${oc.env:IMG}", "${img_size}", "${nowhere}", "64", 64.0, True])
def test_a_value_of_the_wrong_type_is_an_error(config, value):
    with pytest.raises(ValueError, match="img_size"):
        translate_config({**config, "img_size": value}, source="some/hydra.yaml")


@pytest.mark.parametrize("key", ["num_pred", "normalize_action", "num_action_repeat", "env.name", "encoder.name"])
def test_a_missing_key_is_named_with_its_file(config, key):
    with pytest.raises(ValueError, match=rf"some/hydra\.yaml lacks {key}"):
        translate_config(without(config, key), tensors(), "some/hydra.yaml")


@pytest.mark.parametrize(
    "key",
    [
        "num_hist",
        "img_size",
        "concat_dim",
        "frameskip",
        "action_emb_dim",
        "proprio_emb_dim",
        "has_predictor",
        "has_decoder",
        "predictor.depth",
        "predictor.heads",
        "predictor.mlp_dim",
    ],
)
def test_what_the_tensors_tell_may_be_missing(config, key):
    assert translate_config(without(config, key), tensors()) == translate_config(config, tensors())
    with pytest.raises(ValueError, match=f"lacks {key}"):
        translate_config(without(config, key))


@pytest.mark.parametrize(
    ("key", "value", "real"),
    [("num_hist", 4, 3), ("action_emb_dim", 20, 10), ("frameskip", 1, 5), ("concat_dim", 0, 1)],
)
def test_a_contradiction_with_the_tensors_names_both_values(config, key, value, real):
    with pytest.raises(ValueError, match=rf"{key}: {value}.* {real}$"):
        translate_config({**config, key: value}, tensors())


def test_a_shorter_history_than_there_are_positions_is_allowed(config):
    assert translate_config({**config, "num_hist": 1}, tensors())["num_hist"] == 1


def test_a_decoder_that_is_not_in_the_file_is_not_there(config, caplog):
    parts = tensors()
    del parts["decoder"]
    with caplog.at_level(logging.WARNING):
        found = translate_config(config, parts)
    assert found["has_decoder"] is False
    assert found["decoder"] == {}
    assert "has_decoder" in caplog.text


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "a: [1\n", "\x00"])
def test_a_file_that_is_no_config_is_named(tmp_path, text):
    (tmp_path / "hydra.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"hydra\.yaml"):
        read_model_config(tmp_path / "hydra.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"hydra\.yaml"):
        read_model_config(tmp_path / "hydra.yaml")


@pytest.mark.parametrize("img_size", [32, 128, 1000000])
def test_another_image_size_is_not_taken_for_another_history(config, img_size):
    with pytest.raises(ValueError, match=rf"img_size: {img_size}, .*built with 64"):
        translate_config({**config, "img_size": img_size}, tensors())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 1000}, "predictor.heads: 1000"),
        ({"heads": 8}, "predictor.heads: 8"),
        ({"heads": "many"}, "predictor.heads must be of type int"),
        ({"dim_head": "a"}, "predictor.dim_head must be of type int"),
    ],
)
def test_heads_that_do_not_fit_the_tensors_are_named(config, changes, words):
    with pytest.raises(ValueError, match=words):
        translate_config({**config, "predictor": {**config["predictor"], **changes}}, tensors())
