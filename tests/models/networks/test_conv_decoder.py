import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.networks.conv_decoder import ConvDecoder

SIDE, SIGMA = 65, 1.7


def dots(count: int) -> tuple[Tensor, Tensor]:
    """Red dots on white, (count, 3, 65, 65) in [-1, 1], and 4 x 4 tokens of width 32 that tell where they are."""
    centre = 5 + 55 * torch.rand(count, 2, generator=torch.Generator().manual_seed(0))  # (count, xy)
    pixel = torch.arange(SIDE)
    across, down = (torch.exp(-((pixel - c[:, None]) ** 2) / (2 * SIGMA**2)) for c in centre.unbind(1))
    dot = (down[:, :, None] * across[:, None, :])[:, None]
    images = 1 - 2 * dot * torch.tensor([0.0, 1.0, 1.0])[:, None, None]
    grid = (torch.arange(4) + 0.5) * SIDE / 4
    cells = torch.cartesian_prod(grid, grid).flip(1)  # row-major, as x, y
    offset = (centre[:, None] - cells) / 10  # (count, 16, 2)
    bumps = torch.cartesian_prod(torch.linspace(-2, 2, 8), torch.linspace(-1.5, 1.5, 4))
    return torch.exp(-(offset[:, :, None] - bumps).square().sum(-1)), images


def test_it_learns_to_draw_a_small_dot_in_seconds():
    tokens, images = dots(64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = ConvDecoder(emb_dim=32, num_patches=16, img_size=SIDE, width=32)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=6e-3)
    for _ in range(60):
        loss = F.mse_loss(decoder(tokens), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # one picture for all frames is as good as a decoder that ignores its input
    best_constant = F.mse_loss(images.mean(0).expand_as(images), images)
    assert loss < best_constant / 10


@pytest.mark.parametrize(("patches", "emb_dim", "img_size"), [(16, 32, 65), (196, 384, 224), (1, 4, 32), (16, 8, 8)])
@torch.no_grad()
def test_images_have_the_stated_size(patches, emb_dim, img_size):
    decoder = ConvDecoder(emb_dim, patches, img_size)
    images = decoder(torch.zeros(2, 3, patches, emb_dim))
    assert images.shape == (2, 3, 3, decoder.img_size, decoder.img_size)
    assert decoder.img_size == img_size


@torch.no_grad()
def test_a_frame_costs_less_than_fifteen_million_multiply_adds():
    with FlopCounterMode(display=False) as counter:
        ConvDecoder(32, 16, SIDE)(torch.zeros(1, 16, 32))
    assert counter.get_total_flops() / 2 < 15e6


@torch.no_grad()
def test_a_patch_is_drawn_where_it_lies():
    decoder = ConvDecoder(32, 16, SIDE)
    tokens = torch.zeros(2, 16, 32)
    tokens[1, 3] = 3.0  # top right
    dark, lit = decoder(tokens)
    change = (lit - dark).square().sum(0)
    assert change[:32, 33:].sum() > 0.9 * change.sum()


def test_tokens_without_a_square_grid_are_refused():
    with pytest.raises(ValueError, match="square"):
        ConvDecoder(32, 15, SIDE)


def test_it_begins_with_the_mean_image_of_the_data():
    decoder = ConvDecoder(8, 16, 32)
    frames = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    decoder.calibrate(frames)
    assert torch.allclose(decoder.background, frames.float().mean(0) / 127.5 - 1)
    assert decoder.background.requires_grad
