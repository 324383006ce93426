"""torch_world's layout, against what its own code computed."""

import json

import pytest
import torch
from torch import Tensor

from models.checkpoints.native import read_checkpoint
from models.foreign.dino_wm import CheckpointError
from models.foreign.facts import Facts
from models.latent import Latent
from planning.objectives import GoalDistance
from tests.builders import NARROW, action_units, foreign_model, golden_arrays, near

FOLDER = "layouts/torch_world"


def joined(latent: Latent) -> Tensor:
    """Patch tokens as torch_world keeps them: the visual part, and proprio in every patch."""
    return torch.cat([latent.visual, latent.proprio.unflatten(-1, (latent.visual.shape[2], -1))], -1)


@pytest.fixture
def folder(shared_golden):
    return shared_golden(FOLDER)


@pytest.fixture
def recorded(folder) -> dict[str, Tensor]:
    return golden_arrays(folder / "outputs.npz")


@pytest.fixture
def model(folder):
    return foreign_model(folder, Facts(heads=4))


@pytest.fixture
def in_our_units(folder):
    config = json.loads((folder / "config.json").read_text())
    return action_units(config["normalization"]["action"], read_checkpoint(folder, facts=Facts(heads=4)))


@pytest.fixture
def seen(model, recorded) -> Latent:
    return model.encode(recorded["in/pixels_u8"], recorded["in/proprio"])


def test_frames_and_actions_are_embedded_as_there(model, recorded, seen, in_our_units):
    near(joined(seen), recorded["z"], 2e-5)
    near(model.action_encoder(in_our_units(recorded["in/actions"])), recorded["action_emb"], 2e-5)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_predictions_are_the_same(model, recorded, seen, in_our_units, frames):
    expected = recorded[f"predict_t{frames}"]
    actions = in_our_units(recorded["in/actions"])[:, :frames]
    near(joined(model.predict(seen[:, :frames], actions))[:, -expected.shape[1] :], expected, 2e-5)


def test_the_last_norm_has_their_epsilon(model, recorded):
    near(model.predictor.transformer.norm(recorded["norm_small/in"]), recorded["norm_small/out"], 2e-5)


def test_rollouts_costs_and_gradients_are_the_same(model, recorded, seen, in_our_units):
    """Their cost is one mean over all 58 channels: ours with a weight of 10/48, scaled."""
    actions = recorded["in/plan_actions"].requires_grad_()
    goal = model.encode(recorded["in/goal_u8"], recorded["in/goal_proprio"])
    imagined = model.rollout(seen[:, :1], in_our_units(actions))
    near(joined(imagined)[:, :, ::4], recorded["rollout_every4th_patch"], 2e-5)
    cost = GoalDistance("last", 10 / 48)(imagined, goal) * 48 / 58
    near(cost, recorded["cost"], 2e-5)
    cost.sum().backward()
    near(actions.grad, recorded["cost_action_grad"], 1e-4)
    longer = model.rollout(seen[:, :3], in_our_units(recorded["in/context_actions"]))
    near(joined(longer)[:, :, ::4], recorded["rollout_context3_every4th_patch"], 2e-5)


def test_images_as_large_as_those_of_the_public_model_have_their_features(model, recorded, shared_golden):
    from models.networks.dinov2 import DinoV2Encoder

    weights = str(shared_golden("dinov2_reduced.safetensors"))
    encoder = DinoV2Encoder(**NARROW, weights=weights, pixels="imagenet", pixels_per_patch=14)
    near(encoder(recorded["in/pixels224_u8"]).detach(), recorded["features224"], 2e-5)


def test_heads_have_to_be_said(folder):
    with pytest.raises(CheckpointError, match=r"how many heads its predictor has: set foreign\.heads"):
        read_checkpoint(folder)
