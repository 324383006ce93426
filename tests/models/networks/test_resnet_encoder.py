"""The residual encoder: sizes, what a patch sees, and that a checkpoint brings it back."""

from __future__ import annotations

import pytest
import torch

from models.build import build_world_model
from models.checkpoints.loading import load_weights
from models.checkpoints.native import read_checkpoint
from models.checkpoints.stored_architecture import stored_architecture
from models.networks.resnet_encoder import ResidualBlock, ResNetEncoder
from tests.builders import option, wall_architecture, wall_model, wall_model_directory


def encoder_of(**sizes) -> ResNetEncoder:
    torch.manual_seed(0)
    return ResNetEncoder(**sizes)


def images(*leading: int, side: int = 65) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (*leading, 3, side, side), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("side", "patches"), [(16, 1), (31, 1), (32, 4), (64, 16), (65, 16), (80, 25), (100, 36), (224, 196)]
)
def test_any_image_size_gives_a_patch_per_16_pixels(side, patches):
    encoder = encoder_of(img_size=side, width=8, emb_dim=6)
    assert encoder.num_patches == patches
    assert encoder(images(2, side=side)).shape == (2, patches, 6)


def test_leading_dimensions_and_dtype_do_not_matter():
    encoder, shown = encoder_of(), images(6)
    features = encoder(shown)
    torch.testing.assert_close(encoder(shown.unflatten(0, (2, 3))), features.unflatten(0, (2, 3)))
    torch.testing.assert_close(encoder(shown.float()), features)
    assert features.shape == (6, 16, 32)


def test_a_frame_does_not_depend_on_the_frames_beside_it():
    encoder, shown = encoder_of().train(), images(5)
    torch.testing.assert_close(encoder(shown)[2:3], encoder(shown[2:3]))


def test_width_depth_and_emb_dim_change_the_network():
    few = sum(p.numel() for p in encoder_of().parameters())
    assert sum(p.numel() for p in encoder_of(width=24).parameters()) > 2 * few
    deep = encoder_of(depth=2)
    assert len(deep.blocks) == 2 * len(encoder_of().blocks) == 6
    assert deep(images(1)).shape == (1, 16, 32)
    assert encoder_of(emb_dim=7)(images(1)).shape == (1, 16, 7)


def test_it_can_be_the_papers_two_encoders():
    """14 x 14 tokens of 384, and one of 512 (arXiv 2603.12231), both with a LayerNorm at the end."""
    for sizes, tokens in (({"emb_dim": 384}, (196, 384)), ({"emb_dim": 512, "pool": True}, (1, 512))):
        encoder = encoder_of(img_size=224, width=32, depth=2, layer_norm=True, **sizes)
        features = encoder(images(1, side=224))
        assert features.shape == (1, *tokens) == (1, encoder.num_patches, encoder.emb_dim)
        assert features.mean(-1).abs().max() < 1e-5 and (features.var(-1, correction=0) - 1).abs().max() < 1e-2


def test_one_token_is_the_mean_over_patches():
    one, shown = encoder_of(pool=True), images(2)
    assert one.grid == (1, 1)
    torch.testing.assert_close(one(shown)[:, 0], encoder_of()(shown).mean(1))


def test_a_block_with_silent_convolutions_passes_its_input_on():
    block, x = ResidualBlock(8, 8), torch.randn(2, 8, 5, 5)
    torch.nn.init.zeros_(block.second.weight)
    assert torch.equal(block(x), x)


def test_patches_are_places_in_row_major_order():
    """A change of the picture changes the patches of its quarter most."""
    encoder, grey = encoder_of(), torch.full((1, 3, 65, 65), 128.0)
    for quarter, (row, column) in enumerate([(8, 8), (8, 56), (56, 8), (56, 56)]):
        dotted = grey.clone()
        dotted[..., row - 3 : row + 4, column - 3 : column + 4] = 255
        change = (encoder(dotted) - encoder(grey)).square().sum(2).unflatten(1, (2, 2, 2, 2))[0]  # (2, 2, 2, 2) y x
        assert change.sum((1, 3)).flatten().argmax() == quarter


def test_equal_surroundings_are_told_apart_by_their_coordinates():
    """Five by five patches of an even picture: those in the middle do not see its border."""
    encoder = encoder_of(img_size=224)
    even = torch.full((1, 3, 224, 224), 128.0)
    middle = encoder(even).unflatten(1, (14, 14))[0, 5:9, 5:9]
    known = (middle[0, 0] - middle[3, 3]).abs().max()
    encoder.coordinates.zero_()
    middle = encoder(even).unflatten(1, (14, 14))[0, 5:9, 5:9]
    assert (middle[0, 0] - middle[3, 3]).abs().max() < 1e-4 < known


def test_a_checkpoint_brings_it_back(tmp_path):
    changed = wall_architecture(encoder=option("encoder", "resnet", width=8, emb_dim=12))
    checkpoint = read_checkpoint(wall_model_directory(tmp_path, **changed))
    architecture = stored_architecture(checkpoint)
    assert architecture.encoder.settings["width"] == 8 and architecture.encoder.settings["emb_dim"] == 12
    loaded = build_world_model(architecture, 2, 2, 2).eval()
    assert "encoder" not in load_weights(loaded, checkpoint)
    shown = images(3)
    assert torch.equal(loaded.encoder(shown), wall_model(changed).encoder(shown))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"img_size": 15}, "img_size must be at least 16 with encoder=resnet, got 15"),
        ({"width": 12}, "encoder.width must be a positive multiple of 8 .*, got 12"),
        ({"width": 0}, "encoder.width must be a positive multiple of 8 .*, got 0"),
        ({"depth": 0}, "encoder.depth and encoder.emb_dim must be at least 1, got 0 and 32"),
        ({"emb_dim": 0}, "encoder.depth and encoder.emb_dim must be at least 1, got 1 and 0"),
    ],
)
def test_sizes_that_mean_nothing_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        ResNetEncoder(**sizes)


def test_images_of_another_size_are_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"img_size=65, got images of \(64, 64\)"):
        encoder_of()(images(1, side=64))
