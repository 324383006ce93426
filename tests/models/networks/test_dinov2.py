import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from models.foreign.dinov2_weights import WeightsError
from models.networks.dinov2 import DinoV2Encoder
from models.speed.compiling import compile_in_place

REDUCED = {"embed_dim": 48, "depth": 2, "num_heads": 3}


@pytest.fixture
def recorded(golden) -> dict[str, Tensor]:
    """Inputs and outputs of the official model code, with random weights."""
    return {name: torch.from_numpy(array) for name, array in np.load(golden("dinov2_features.npz")).items()}


@pytest.fixture
def encoder(golden) -> DinoV2Encoder:
    return DinoV2Encoder(weights=str(golden("dinov2_reduced.safetensors")), **REDUCED).eval()


@pytest.fixture
def images(recorded) -> Tensor:
    return recorded["image_u8"].permute(0, 3, 1, 2)


@torch.no_grad()
def test_features_are_those_of_the_official_model(encoder, recorded, images):
    torch.testing.assert_close(encoder(images), recorded["x_norm_patchtokens"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_each_stage_agrees_with_the_official_one(encoder, recorded, images):
    torch.testing.assert_close(encoder.preprocess(images), recorded["image_196"], atol=1e-4, rtol=0)
    positions = encoder.base_model.positions(14, 14)
    torch.testing.assert_close(positions, recorded["pos_embed_interpolated"], atol=1e-4, rtol=0)


def test_resize_equals_torchvision(encoder, images):
    resize = pytest.importorskip("torchvision.transforms").Resize(196, antialias=True)
    expected = resize((images.float() / 255 - 0.5) / 0.5)
    torch.testing.assert_close(encoder.preprocess(images), expected, atol=1e-6, rtol=0)


def test_the_pretrained_position_grid_is_not_resampled(encoder):
    assert encoder.base_model.positions(37, 37) is encoder.base_model.pos_embed


@torch.no_grad()
def test_leading_dimensions_and_splitting_change_nothing(golden, images):
    arguments = {"weights": str(golden("dinov2_reduced.safetensors")), **REDUCED}
    whole = DinoV2Encoder(**arguments)(images)
    split = DinoV2Encoder(**arguments, max_frames=1)(images.reshape(1, 2, 1, 3, 224, 224).float())
    assert split.shape == (1, 2, 1, 196, 48)
    torch.testing.assert_close(split.reshape_as(whole), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("img_size", "side"), [(224, 14), (64, 4), (65, 4), (96, 6)])
@torch.no_grad()
def test_the_stated_patches_are_what_comes_out(img_size, side):
    encoder = DinoV2Encoder(weights="random", img_size=img_size, **REDUCED)
    features = encoder(torch.zeros(1, 3, img_size, img_size, dtype=torch.uint8))
    assert encoder.grid == (side, side)
    assert features.shape == (1, encoder.num_patches, encoder.emb_dim)


def test_random_weights_follow_the_seed():
    def features(seed: int) -> Tensor:
        encoder = DinoV2Encoder(weights="random", img_size=32, seed=seed, **REDUCED)
        return encoder(torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32) % 256)

    assert torch.equal(features(0), features(0))
    assert not torch.allclose(features(0), features(1))


def test_the_default_architecture_has_the_official_names_and_sizes():
    state = DinoV2Encoder(weights="random").base_model.state_dict()
    assert len(state) == 175
    assert sum(tensor.numel() for tensor in state.values()) == 22_056_576
    assert state["blocks.11.attn.qkv.weight"].shape == (1152, 384)
    assert state["pos_embed"].shape == (1, 1370, 384)


def test_gradients_reach_the_network(encoder, images):
    encoder(images[:1]).sum().backward()
    without = {name for name, parameter in encoder.base_model.named_parameters() if parameter.grad is None}
    assert without == {"mask_token"}


def test_the_hash_of_the_file_is_recorded(encoder):
    assert encoder.weights_sha256 is not None
    assert len(encoder.weights_sha256) == 64
    assert DinoV2Encoder(weights="random", **REDUCED).weights_sha256 is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"feature_key": "x_norm_clstoken"}, ["encoder.feature_key", "x_norm_patchtokens", "x_norm_clstoken"]),
        ({"name": "dinov2_vits14_reg"}, ["encoder.name", "dinov2_vits14"]),
        ({"img_size": 8}, ["img_size"]),
        ({"num_heads": 7}, ["encoder.num_heads", "384", "7"]),
        ({"num_heads": 8}, ["encoder.num_heads", "dinov2_vits14 is 6", "8"]),
        ({"num_heads": 0}, ["encoder.num_heads", "0"]),
        ({"embed_dim": 50}, ["encoder.num_heads", "embed_dim=50", "6"]),
    ],
)
def test_an_unsupported_argument_is_refused_by_name(arguments, words):
    with pytest.raises(ValueError) as caught:
        DinoV2Encoder(weights="random", **arguments)
    assert all(word in str(caught.value) for word in words)


def test_images_of_another_size_are_refused(encoder):
    with pytest.raises(ValueError, match="img_size"):
        encoder(torch.zeros(1, 3, 65, 65))


def test_weights_of_another_size_are_refused(golden):
    with pytest.raises(WeightsError, match="wrong shape"):
        DinoV2Encoder(weights=str(golden("dinov2_reduced.safetensors")))


@pytest.mark.slow
@torch.no_grad()
def test_compiled_blocks_see_the_same(encoder, images):
    """All blocks are alike: they are compiled once, and again for another number of frames."""
    compiled = copy.deepcopy(encoder)
    compile_in_place(compiled)
    for frames in (images, images[:1]):
        torch.testing.assert_close(compiled(frames), encoder(frames), atol=1e-5, rtol=1e-5)
