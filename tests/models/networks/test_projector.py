"""Projectors: published sizes, plain arithmetic, and what they refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.architecture import Architecture
from models.build import build_world_model
from models.flops import ModelFlops
from models.networks.projector import ChannelProjector, GlobalProjector
from tests.builders import near, numbers, option, wall_architecture

PUBLISHED = (384, [14, 14])  # DINOv2 ViT-S/14 at 196 pixels


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_channel_projector_gives_196_tokens_of_8():
    projector = ChannelProjector(*PUBLISHED)
    assert (projector.num_patches, projector.emb_dim) == (196, 8)
    assert projector(numbers(2, 3, 196, 384)).shape == (2, 3, 196, 8)
    assert count(projector) == (9 * 384 + 1 + 2) * 192 + (9 * 192 + 1 + 2) * 8


def test_the_published_global_projector_gives_one_token_of_384():
    projector = GlobalProjector(*PUBLISHED)
    assert (projector.num_patches, projector.emb_dim) == (1, 384)
    assert projector(numbers(2, 1, 196, 384)).shape == (2, 1, 1, 384)
    assert count(projector) == (2 * 384 + 3 * 9 * 384 + 5 + 4 * 2 + 2) * 384


def test_the_channel_projector_by_hand():
    torch.manual_seed(0)
    projector, features = ChannelProjector(5, [3, 4], hidden=6, emb_dim=2), numbers(2, 12, 5)
    image = features.reshape(2, 3, 4, 5).permute(0, 3, 1, 2)
    first, second = projector.convolutions
    hidden = F.conv2d(image, first.weight, first.bias, padding=1)
    mean, variance = hidden.mean(1, keepdim=True), hidden.var(1, keepdim=True, correction=0)
    hidden = F.relu((hidden - mean) / (variance + 1e-5).sqrt())
    result = F.conv2d(hidden, second.weight, second.bias, padding=1).permute(0, 2, 3, 1).reshape(2, 12, 2)
    near(projector(features), F.layer_norm(result, (2,)), 1e-5)


def test_a_patch_reaches_its_neighbours_only():
    projector, features = ChannelProjector(4, [7, 7], hidden=8), numbers(1, 49, 4)
    moved = features.clone()
    moved[:, 24] += 1  # the middle one
    changes = (projector(moved) - projector(features)).abs().amax(2).unflatten(1, (7, 7))[0] > 1e-6
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[1:6, 1:6] = True  # two convolutions of side 3
    assert torch.equal(changes, expected)


@pytest.mark.parametrize("sizes", [{"depth": 1, "kernel": 1}, {"depth": 3, "kernel": 5}])
def test_depth_and_kernel_are_free(sizes):
    assert ChannelProjector(4, [3, 3], hidden=8, **sizes)(numbers(2, 9, 4)).shape == (2, 9, 8)
    assert GlobalProjector(4, [3, 3], hidden=16, emb_dim=5, **sizes)(numbers(2, 9, 4)).shape == (2, 1, 5)


@pytest.mark.parametrize(
    ("kind", "sizes", "message"),
    [
        (ChannelProjector, {"kernel": 2}, "projector.kernel must be odd, got 2"),
        (GlobalProjector, {"kernel": 4}, "projector.kernel must be odd, got 4"),
        (GlobalProjector, {"hidden": 20}, "projector.hidden must be a multiple of 8 .* at least 16, got 20"),
        (GlobalProjector, {"hidden": 8}, "projector.hidden must be a multiple of 8 .* at least 16, got 8"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(kind, sizes, message):
    with pytest.raises(ValueError, match=message):
        kind(4, [3, 3], **sizes)


def build(**changes) -> torch.nn.Module:
    return build_world_model(Architecture.from_dict(wall_architecture(**changes)), 2, 2, 2)


@pytest.mark.parametrize("name", ["channel", "global"])
def test_an_encoder_without_a_grid_is_refused_in_one_line(name):
    with pytest.raises(Exception, match=rf"projector={name} needs an encoder .* a grid .*; use projector=none"):
        build(encoder=option("encoder", "state"), has_decoder=False, projector=option("projector", name))


def test_a_decoder_that_needs_more_patches_is_refused():
    with pytest.raises(ValueError, match=r"the decoder draws 16 x 16 pixels from the 1 patches .* use decoder=conv"):
        build(decoder=option("decoder", "vqvae", n_res_block=0, channel=4), projector=option("projector", "global"))
    assert build(projector=option("projector", "global")).decoder is not None


def test_tokens_of_28_instead_of_404_take_1_48_instead_of_8_73_gflop_a_frame():
    """DINO-WM at full size without a history; what the projector itself takes is counted with the encoder, once."""
    parts = {name: option(name, chosen) for name, chosen in {"encoder": "dino", "predictor": "vit"}.items()}
    parts["encoder"] |= {"weights": "random", "depth": 1}
    sizes = {**parts, "img_size": 224, "has_decoder": False}
    for_a_latent = []
    for projector, width, gflop in ((None, 404, 8.73), (option("projector", "channel"), 28, 1.48)):
        architecture = Architecture.from_dict(wall_architecture(projector=projector, **sizes))
        model = build_world_model(architecture, 2, 2, 2, without_weights=("predictor",))
        assert model.layout.token_dim == width and model.layout.tokens_per_frame == 196
        flops = ModelFlops.of(model)
        assert flops.predict(1) / 1e9 == pytest.approx(gflop, abs=0.005)
        for_a_latent.append(flops.encoder)
    assert for_a_latent[1] - for_a_latent[0] == 2 * 196 * 9 * (384 * 192 + 192 * 8)
