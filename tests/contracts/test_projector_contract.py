"""Every option of the group ``projector`` keeps the contract of ``models.interfaces.Projector``."""

from __future__ import annotations

import pytest
import torch

from models.architecture import Architecture
from models.build import build_world_model
from models.checkpoints.loading import EncoderConfig, load_for_planning
from models.checkpoints.native import read_checkpoint, write_model_config
from models.checkpoints.own_file import write_checkpoint
from models.interfaces import Projector
from tests.builders import near, numbers
from utils.env_sizes import EnvSizes

SIZES = EnvSizes(env_action_dim=2, proprio_dim=2, state_dim=2)


@pytest.fixture(scope="module")
def config(projector_option, composing):
    """The settings of a training with this projector."""
    return composing("experiment=wall_small", "has_decoder=false", f"projector={projector_option}")


@pytest.fixture(scope="module")
def model(config):
    """A world model with this projector on a small encoder."""
    torch.manual_seed(0)
    return build_world_model(Architecture.from_dict(config), *SIZES).eval()


@pytest.fixture(scope="module")
def features(model):
    """What the encoder says of some frames (2, 3)."""
    return numbers(2, 3, model.encoder.num_patches, model.encoder.emb_dim)


@torch.no_grad()
def test_projected_features_are_finite_and_as_large_as_it_says(model, features):
    assert isinstance(model.projector, Projector)
    projected = model.projector(features)
    assert projected.shape == (2, 3, model.projector.num_patches, model.projector.emb_dim)
    assert projected.is_floating_point() and projected.isfinite().all()
    near(model.projector(features.flatten(0, 1)), projected.flatten(0, 1))
    assert not torch.allclose(projected[0, 0], projected[1, 0]), "frames that differ stay different"


@torch.no_grad()
def test_each_frame_is_projected_by_itself_and_again_alike(model, features):
    projected = model.projector(features)
    assert torch.equal(model.projector(features), projected), "in eval mode nothing is drawn"
    for row in range(2):
        near(model.projector(features[row : row + 1, :1]), projected[row : row + 1, :1])


def test_what_it_learns_with_has_gradients(model, features):
    parameters = list(model.projector.parameters())
    if parameters:
        gradients = torch.autograd.grad(model.projector(features)[..., 0].sum(), parameters, allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in gradients)


@torch.no_grad()
def test_a_world_model_predicts_what_it_projects(model, features, config):
    latent = model.embed(features, numbers(2, 3, 2))
    assert torch.equal(latent.visual, model.projector(features))
    following = model.predict(latent[:, :1], numbers(2, 1, 2 * config["frameskip"]))
    assert following.visual.shape == (2, 1, model.projector.num_patches, model.projector.emb_dim)
    assert following.visual.isfinite().all()


@torch.no_grad()
def test_a_checkpoint_brings_it_back(model, features, config, tmp_path):
    write_model_config(tmp_path, config)
    path = tmp_path / "checkpoints" / "model_latest.safetensors"
    write_checkpoint(path, model, epoch=0, about={"step": 0}, with_encoder=True)
    torch.manual_seed(5)  # another process has another state
    loaded, _ = load_for_planning(read_checkpoint(tmp_path), SIZES, EncoderConfig(), torch.device("cpu"))
    assert torch.equal(loaded.projector(features), model.projector(features)), (
        "saved and loaded, a projector gives the same: keep in parameters or buffers what does not follow from its "
        "settings"
    )
