import numpy as np
import pytest
import torch

from models.foreign.dino_wm import read_pickled_checkpoint
from models.networks.vqvae import VQVAE, ResBlock

SMALL = {"channel": 8, "n_res_block": 2, "n_res_channel": 4, "emb_dim": 6, "num_patches": 9}


@pytest.mark.parametrize(("name", "num_hist"), [("pusht_h3", 3), ("wall_h1", 1)])
@torch.no_grad()
def test_images_are_those_of_the_original_decoder(shared_golden, name, num_hist):
    recorded = np.load(shared_golden(f"world_model_outputs_h{num_hist}.npz"))
    state = read_pickled_checkpoint(shared_golden(f"checkpoints/{name}/checkpoints/model_latest.pth")).parts
    decoder = VQVAE(channel=16, n_embed=16, n_res_block=1, n_res_channel=8, emb_dim=48)
    decoder.load_state_dict(state["decoder"])
    expected = torch.from_numpy(recorded["decoded_first_frame"])
    decoded = decoder(torch.from_numpy(recorded["z"])[:, :1, :, :48])
    torch.testing.assert_close(decoded, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


@torch.no_grad()
def test_the_skip_connection_carries_the_unrectified_input():
    block = ResBlock(2, 3)
    for parameter in block.parameters():
        parameter.zero_()
    image = -torch.ones(1, 2, 4, 4)
    assert torch.equal(block(image), -torch.ones(1, 2, 4, 4))


@torch.no_grad()
def test_a_patch_is_drawn_where_it_lies():
    decoder = VQVAE(**{**SMALL, "num_patches": 64})
    features = torch.zeros(2, 1, 64, 6)
    features[1, 0, 2 * 8 + 5] = 10.0  # row 2, column 5
    images = decoder(features)
    assert images.shape == (2, 1, 3, decoder.img_size, decoder.img_size) == (2, 1, 3, 128, 128)
    change = (images[1] - images[0]).square().sum((0, 1)) / (images[1] - images[0]).square().sum()
    assert (change.sum(1) * torch.arange(128)).sum() == pytest.approx(40, abs=20)
    assert (change.sum(0) * torch.arange(128)).sum() == pytest.approx(88, abs=20)


def test_full_size_names_and_parameters_are_those_of_released_checkpoints():
    with torch.device("meta"):
        state = VQVAE().state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == pytest.approx(10.1e6, rel=0.005)
    assert state["upsample_b.blocks.8.weight"].shape == (192, 384, 4, 4)
    assert state["dec.blocks.4.conv.3.weight"].shape == (384, 128, 1, 1)
    assert state["dec.blocks.8.bias"].shape == (3,)


def test_the_unused_codebook_is_dropped_and_nothing_else():
    decoder = VQVAE(**SMALL)
    codebook = {"quantize_b.embed": torch.zeros(6, 4), "quantize_b.cluster_size": torch.zeros(4)}
    decoder.load_state_dict({**decoder.state_dict(), **codebook})
    with pytest.raises(RuntimeError, match="quantize_t"):
        decoder.load_state_dict({**decoder.state_dict(), "quantize_t.embed": torch.zeros(6, 4)})


@pytest.mark.parametrize(("arguments", "words"), [({"quantize": True}, "quantize"), ({"num_patches": 8}, "square")])
def test_an_unsupported_argument_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        VQVAE(**{**SMALL, **arguments})
