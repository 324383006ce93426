"""jepa-wms' layouts, against what its own code computed."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.checkpoints.native import read_checkpoint
from models.foreign.facts import Facts
from models.foreign.inert_pickle import CheckpointError
from models.latent import Latent
from models.networks.adaln import AdaLNPredictor
from models.speed.fast_paths import FastPaths
from models.world_model import WorldModel
from planning.objectives import GoalDistance
from tests.builders import foreign_model, golden_arrays, jepa_wms_file, near

SMALL = Facts(heads=4, img_size=84)
PATCHES = 36


@pytest.fixture(params=["dino_wm_pusht", "jepa_wm_wall"])
def path(request, shared_golden) -> Path:
    return shared_golden(f"layouts/jepa_wms/{request.param}/{request.param}.pth.tar")


@pytest.fixture
def recorded(path) -> dict[str, Tensor]:
    """What was recorded; proprio readings z-scored with the statistics that are known of the file's name."""
    arrays = golden_arrays(path.parent / "outputs.npz")
    about = read_checkpoint(path, facts=SMALL).about["statistics"]
    mean, std = (torch.tensor(about[f"proprio_{key}"]) for key in ("mean", "std"))
    return arrays | {name: (arrays[name] - mean) / std for name in ("in/proprio", "in/goal_proprio")}


def copies(latent: Latent) -> Tensor:
    """The proprio of each patch (B, T, P, E)."""
    return latent.proprio.unflatten(-1, (PATCHES, -1))


def context(model: WorldModel, recorded: dict[str, Tensor]) -> Latent:
    return model.encode(recorded["in/visual_u8"], recorded["in/proprio"])


def test_frames_are_embedded_as_there(path, recorded):
    seen = context(foreign_model(path, SMALL), recorded)
    near(seen.visual, recorded["z_visual"].flatten(2, 4), 2e-5)
    near(copies(seen)[:, :, 0], recorded["z_proprio"][:, :, 0], 2e-5)


def test_predictions_are_the_same_for_every_patch(path, recorded):
    model = foreign_model(path, Facts(heads=4, img_size=84, num_hist=4))
    seen = context(model, recorded)
    for frames in (1, 2, 3):
        found = model.predict(seen[:, :frames], recorded["in/actions_normalised"][:, :frames])
        near(found.visual, recorded[f"predict_t{frames}/visual"].flatten(2, 4), 2e-5)
        near(copies(found), recorded[f"predict_t{frames}/proprio"], 2e-5)
    norm = model.predictor.norm if isinstance(model.predictor, AdaLNPredictor) else model.predictor.transformer.norm
    near(norm(recorded["norm_small/in"]), recorded["norm_small/out"], 2e-5)


@pytest.mark.parametrize("speed", [FastPaths(), FastPaths.plain()], ids=["auto", "plain"])
def test_rollouts_costs_and_gradients_are_the_same(path, recorded, speed):
    """Their rollouts see a window of two frames."""
    model = foreign_model(path, SMALL)
    speed.install(model)
    model = speed.prepare(model)
    goal = model.encode(recorded["in/goal_visual_u8"], recorded["in/goal_proprio"])
    actions = recorded["in/plan_actions_normalised"].requires_grad_()
    imagined = model.rollout(context(model, recorded)[:, :1], actions.transpose(0, 1))
    near(imagined.visual.transpose(0, 1), recorded["unroll_ctx1/visual"].flatten(2, 4), 2e-5)
    near(copies(imagined)[:, :, 0].transpose(0, 1), recorded["unroll_ctx1/proprio"][:, :, 0], 2e-5)
    cost = GoalDistance("last", 0.1)(imagined, goal)
    near(cost, recorded["cost_L2_alpha0.1_ctx1"], 2e-5)
    cost.sum().backward()
    near(actions.grad, recorded["cost_L2_alpha0.1_ctx1_action_grad"], 1e-4)


def test_environment_and_frameskip_follow_from_the_name(path):
    config = read_checkpoint(path, facts=SMALL).config
    assert config["env"]["name"] == path.name.split(".")[0].split("_")[-1]
    assert (config["frameskip"], config["num_hist"]) == (5, 2)


def test_the_optimiser_is_not_read_and_the_epoch_is(tmp_path):
    checkpoint = read_checkpoint(jepa_wms_file(tmp_path / "dino_wm_pusht.pth.tar"), facts=Facts(heads=2))
    assert checkpoint.epoch == 7
    assert {name.split(".")[0] for name in checkpoint.tensors} == {"predictor", "action_encoder", "proprio_encoder"}
    assert checkpoint.config["img_size"] == 56


@pytest.mark.parametrize("wrapper", ["", "_orig_mod.", "module._orig_mod."])
def test_wrappers_around_the_parts_change_nothing(tmp_path, wrapper):
    path = jepa_wms_file(tmp_path / "dino_wm_pusht.pth.tar")
    expected = read_checkpoint(path, facts=Facts(heads=2)).tensors
    parts = torch.load(path)
    for part in ("predictor", "action_encoder", "proprio_encoder"):
        parts[part] = {wrapper + name.removeprefix("module."): tensor for name, tensor in parts[part].items()}
    torch.save(parts, path)
    found = read_checkpoint(path, facts=Facts(heads=2)).tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_an_unknown_name_leaves_environment_and_statistics_open(tmp_path):
    checkpoint = read_checkpoint(jepa_wms_file(tmp_path / "mine.pth.tar"), facts=Facts(heads=2))
    assert "name" not in checkpoint.config["env"]
    assert "statistics" not in checkpoint.about


def test_heads_have_to_be_said_where_the_sizes_are_not_those_of_the_published_models(tmp_path):
    with pytest.raises(CheckpointError, match=r"how many heads its predictor has: set foreign\.heads"):
        read_checkpoint(jepa_wms_file(tmp_path / "dino_wm_pusht.pth.tar"))


def test_models_without_proprio_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="models without proprio cannot be represented"):
        read_checkpoint(jepa_wms_file(tmp_path / "dino_wm_pusht.pth.tar", proprio=False), facts=Facts(heads=2))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"model": {"module.decoder_embed.weight": torch.zeros(2, 2)}}, "is a decoder head of jepa-wms"),
        ({"predictor": {"module.predictor_blocks.0.norm1.weight": torch.zeros(2)}}, "a predictor of V-JEPA 2-AC"),
    ],
)
def test_their_other_files_are_refused_by_what_they_are(tmp_path, tensors, words):
    torch.save({**tensors, "opt": {}, "scaler": None, "epoch": 1}, tmp_path / "x.pth.tar")
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(tmp_path / "x.pth.tar")
