"""stable-worldmodel's layout, against what its own code computed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.checkpoints.native import read_checkpoint
from models.foreign.facts import Facts
from models.foreign.inert_pickle import CheckpointError
from models.foreign.stable_worldmodel import STATISTICS
from models.latent import Latent
from models.networks.dinov2 import DinoV2Encoder
from models.speed.fast_paths import FastPaths
from planning.objectives import GoalDistance
from tests.builders import NARROW, REPOSITORY, action_units, foreign_model, golden_arrays, near


@pytest.fixture
def folder(shared_golden) -> Path:
    return shared_golden("layouts/stable_worldmodel")


@pytest.fixture
def recorded(folder) -> dict[str, Tensor]:
    return golden_arrays(folder / "outputs.npz")


@pytest.fixture
def model(folder):
    """With the fast modules in their places, which compute the same."""
    model = foreign_model(folder, Facts())
    FastPaths().install(model)
    return model


@pytest.fixture
def in_our_units(folder):
    return action_units(json.loads((folder / STATISTICS).read_text())["action"], read_checkpoint(folder))


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the recorded files with other tensors, another config, or without statistics."""

    def make(tensors: dict[str, Tensor] | None = None, config: dict | None = None) -> Path:
        shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile, dirs_exist_ok=True)
        (tmp_path / "copy").chmod(0o755)
        if tensors is not None:
            torch.save(tensors, tmp_path / "copy/weights.pt")
        if config is not None:
            (tmp_path / "copy/config.json").write_text(json.dumps(config))
        return tmp_path / "copy"

    return make


@pytest.fixture
def tensors(folder) -> dict[str, Tensor]:
    return torch.load(folder / "weights.pt", weights_only=True)


@pytest.fixture
def seen(model, recorded) -> Latent:
    return model.encode(recorded["in/pixels_u8"], recorded["in/proprio"])


def test_frames_are_embedded_as_there(seen, recorded):
    near(seen.visual, recorded["z"][..., :48], 2e-5)
    near(seen.proprio, recorded["proprio_emb"], 2e-5)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_predictions_are_the_same(model, recorded, seen, in_our_units, frames):
    expected = recorded[f"predict_t{frames}"]
    found = model.predict_tokens(model.tokens(seen[:, :frames], in_our_units(recorded["in/actions"])[:, :frames]))
    near(found[:, -expected.shape[1] :], expected, 2e-5)


def test_the_last_norm_has_their_epsilon(model, recorded):
    near(model.predictor.transformer.norm(recorded["norm_small/in"]), recorded["norm_small/out"], 2e-5)


@pytest.mark.parametrize("start", ["n1", "main/n3"])
def test_rollouts_costs_and_gradients_are_the_same(model, recorded, seen, in_our_units, start):
    """Visual and proprio part weigh the same; candidates are folded into the batch."""
    goal = model.encode(recorded["in/goal_u8"], recorded["in/goal_proprio"])
    actions = recorded["in/candidates"].requires_grad_()
    blocks, frames = actions, seen[:, :1]
    if start == "main/n3":
        blocks, frames = torch.cat([recorded["in/past_actions"], actions], 2), seen
    context, aim = (part.map(lambda each: each.repeat_interleave(2, 0)) for part in (frames, goal))
    imagined = model.rollout(context, in_our_units(blocks).flatten(0, 1))
    if start == "n1":
        expected = recorded["n1/predicted_embedding"].flatten(0, 1)
        near(imagined.visual, expected[..., :48], 2e-5)
        near(imagined.proprio, recorded["n1/predicted_proprio_emb"].flatten(0, 1), 2e-5)
    cost = GoalDistance("last", 1.0)(imagined, aim).view(2, 2)
    near(cost, recorded[f"{start}/cost"], 2e-5)
    cost.sum().backward()
    near(actions.grad, recorded[f"{start}/cost_action_grad"], 1e-4)


def test_positions_are_resized_as_transformers_do(recorded):
    def features(**how: str) -> Tensor:
        weights = str(REPOSITORY / "tests/golden/dinov2_reduced.safetensors")
        encoder = DinoV2Encoder(**NARROW, weights=weights, pixels="imagenet", pixels_per_patch=14, **how)
        return encoder(recorded["in/pixels224_u8"]).detach()

    near(features(positions="transformers"), recorded["features224"], 2e-5)
    near(features(), recorded["features224_official_dinov2"], 2e-5)


def test_files_of_an_older_transformers_hold_the_same(copy, tensors, folder):
    def older(name: str) -> str:
        for letter, word in {"q": "query", "k": "key", "v": "value"}.items():
            name = name.replace(f"attention.{letter}_proj", f"attention.attention.{word}")
        return name.replace("attention.o_proj", "attention.output.dense")

    renamed = {older(name): tensor for name, tensor in tensors.items()}
    assert renamed.keys() != tensors.keys()
    found, expected = read_checkpoint(copy(renamed)).tensors, read_checkpoint(folder).tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_another_order_in_the_token_is_put_into_ours(copy, tensors, folder, recorded, seen, model):
    """The visual part is 48 wide, proprio and action 10 each: theirs changed places."""
    order = torch.tensor([*range(48), *range(58, 68), *range(48, 58)])
    swapped = {
        name: tensor.index_select([*tensor.shape].index(68), order)
        if name.startswith("predictor.") and 68 in tensor.shape
        else tensor
        for name, tensor in tensors.items()
    }
    config = json.loads((folder / "config.json").read_text())
    modules = config["extra_encoders"]["modules"]
    config["extra_encoders"]["modules"] = {"action": modules["action"], "proprio": modules["proprio"]}
    again = foreign_model(copy(swapped, config), Facts())
    actions = recorded["in/actions"]
    torch.testing.assert_close(again.predict(seen, actions).visual, model.predict(seen, actions).visual)


def test_other_inputs_are_refused_by_name(copy, tensors):
    tensors["extra_encoders.force.patch_embed.weight"] = torch.zeros(10, 3, 1)
    with pytest.raises(CheckpointError, match=r"has extra_encoders\.force\.patch_embed\.weight, which this project"):
        read_checkpoint(copy(tensors))


def test_models_without_proprio_are_refused(copy, tensors):
    without = {name: tensor for name, tensor in tensors.items() if "proprio" not in name}
    with pytest.raises(CheckpointError, match=r"models without proprio cannot be represented"):
        read_checkpoint(copy(without))


def test_an_encoder_whose_queries_and_keys_differ_in_shape_is_refused(copy, tensors):
    tensors["backbone.encoder.layer.0.attention.k_proj.weight"] = torch.zeros(48, 47)
    with pytest.raises(CheckpointError, match="queries, keys and values of its encoder differ in shape"):
        read_checkpoint(copy(tensors))


def test_nothing_is_cut_off_a_tensor_that_is_put_into_another_order(copy, tensors, folder):
    config = json.loads((folder / "config.json").read_text())
    config["extra_encoders"]["modules"] = {"action": {}, "proprio": {}}
    tensors["predictor.transformer.norm.weight"] = torch.zeros(69)
    with pytest.raises(CheckpointError, match=r"norm\.weight has shape \(69,\), its tokens are 68 wide"):
        read_checkpoint(copy(tensors, config))


def test_statistics_that_are_none_are_refused(copy):
    path = copy()
    (path / STATISTICS).write_text('{"action": {"mean": [0]}}')
    with pytest.raises(CheckpointError, match=r"norm_stats\.json has no usable action std; .*foreign\.stat"):
        read_checkpoint(path)


@pytest.mark.parametrize(("said", "read"), [(0, 0.0), (0.3, 0.3), (float("nan"), None), (7.0, None), (True, None)])
def test_a_dropout_that_is_none_is_not_taken(copy, folder, said, read):
    config = json.loads((folder / "config.json").read_text())
    config["predictor"]["dropout"] = said
    assert read_checkpoint(copy(config=config)).config["predictor"].get("dropout") == read


def test_nothing_that_the_config_names_is_imported(copy, folder):
    config = json.loads((folder / "config.json").read_text()) | {"_target_": "os.system"}
    assert read_checkpoint(copy(config=config)).config["num_hist"] == 3


def test_heads_that_do_not_fit_the_weights_are_refused(folder, copy):
    config = json.loads((folder / "config.json").read_text())
    config["predictor"] |= {"heads": 2 * config["predictor"]["heads"]}
    with pytest.raises(CheckpointError, match=r"heads of 16 as its config\.json says would be 8 wide"):
        read_checkpoint(copy(config=config))
