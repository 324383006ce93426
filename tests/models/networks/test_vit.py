import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.foreign.dino_wm import read_pickled_checkpoint
from models.networks.vit import Attention, ViTPredictor

P, FRAMES, DIM = 4, 3, 12


@pytest.fixture
def predictor() -> ViTPredictor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ViTPredictor(P, FRAMES, DIM, depth=2, heads=2, mlp_dim=16, dim_head=5).eval()


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, FRAMES * P, DIM, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "num_hist"), [("pusht_h3", 3), ("wall_h1", 1)])
@torch.no_grad()
def test_predictions_are_those_of_the_original_model(shared_golden, name, num_hist):
    recorded = np.load(shared_golden(f"world_model_outputs_h{num_hist}.npz"))
    state = read_pickled_checkpoint(shared_golden(f"checkpoints/{name}/checkpoints/model_latest.pth")).parts
    predictor = ViTPredictor(196, num_hist, 68, depth=2, heads=4, mlp_dim=64, dim_head=16, dropout=0.1).eval()
    predictor.load_state_dict(state["predictor"])
    z = torch.from_numpy(recorded["z"])
    for frames in range(1, num_hist + 1):
        expected = torch.from_numpy(recorded[f"predict_t{frames}"])
        predicted = predictor(z[:, :frames].flatten(1, 2)).view_as(expected)
        torch.testing.assert_close(predicted, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


@torch.no_grad()
def test_attention_is_the_softmax_over_own_and_earlier_frames(tokens):
    attention = Attention(DIM, heads=2, dim_head=5, dropout=0.0, tokens_per_frame=P)
    query, key, value = attention.to_qkv(attention.norm(tokens)).view(2, -1, 3, 2, 5).permute(2, 0, 3, 1, 4)
    frame = torch.arange(FRAMES * P) // P
    scores = query @ key.transpose(-1, -2) / 5**0.5
    weights = F.softmax(scores.masked_fill(frame[:, None] < frame, -torch.inf), dim=-1)
    expected = attention.to_out((weights @ value).transpose(1, 2).reshape(2, -1, 10))
    torch.testing.assert_close(attention(tokens)[0], expected, atol=1e-6, rtol=1e-5)


def test_a_token_depends_on_all_tokens_of_its_own_and_earlier_frames_only(predictor, tokens):
    tokens.requires_grad_()
    for index in (P - 1, P, 2 * P - 1):
        (grad,) = torch.autograd.grad(predictor(tokens)[:, index].square().sum(), tokens)
        seen = (index // P + 1) * P
        assert (grad[:, :seen].abs().amax((0, 2)) > 0).all()
        assert (grad[:, seen:] == 0).all()


@torch.no_grad()
def test_fewer_frames_are_predicted_as_if_the_later_ones_were_there(predictor, tokens):
    torch.testing.assert_close(predictor(tokens[:, : 2 * P]), predictor(tokens)[:, : 2 * P])


def test_dropout_acts_in_training_only(tokens):
    predictor = ViTPredictor(P, FRAMES, DIM, 1, 2, 16, dropout=0.5, emb_dropout=0.5)
    assert not torch.equal(predictor.train()(tokens), predictor(tokens))
    assert torch.equal(predictor.eval()(tokens), predictor(tokens))


def test_tensor_names_are_those_of_released_checkpoints(predictor):
    names = {name.replace(".1.0.", ".0.0.").replace(".1.1.", ".0.1.") for name in predictor.state_dict()}
    assert names == {
        "pos_embedding",
        "transformer.norm.weight",
        "transformer.norm.bias",
        "transformer.layers.0.0.norm.weight",
        "transformer.layers.0.0.norm.bias",
        "transformer.layers.0.0.to_qkv.weight",
        "transformer.layers.0.0.to_out.0.weight",
        "transformer.layers.0.0.to_out.0.bias",
        "transformer.layers.0.1.net.0.weight",
        "transformer.layers.0.1.net.0.bias",
        "transformer.layers.0.1.net.1.weight",
        "transformer.layers.0.1.net.1.bias",
        "transformer.layers.0.1.net.4.weight",
        "transformer.layers.0.1.net.4.bias",
    }


def test_the_full_size_model_has_the_published_number_of_parameters():
    with torch.device("meta"):
        predictor = ViTPredictor(196, 3, 404, depth=6, heads=16, mlp_dim=2048)
    assert sum(parameter.numel() for parameter in predictor.parameters()) == pytest.approx(20.1e6, rel=0.005)


def test_the_mask_of_a_released_checkpoint_is_dropped_and_nothing_else(predictor):
    state = predictor.state_dict()
    mask = torch.ones(1, 1, FRAMES * P, FRAMES * P)
    predictor.load_state_dict({**state, "transformer.layers.0.0.bias": mask})
    with pytest.raises(RuntimeError, match="Unexpected"):
        predictor.load_state_dict({**state, "transformer.layers.0.0.scale": mask})


@torch.no_grad()
def test_a_shorter_history_takes_the_first_positions_of_a_checkpoint(predictor, tokens):
    shorter = ViTPredictor(P, 1, DIM, depth=2, heads=2, mlp_dim=16, dim_head=5).eval()
    shorter.load_state_dict(predictor.state_dict())
    torch.testing.assert_close(shorter(tokens[:, :P]), predictor(tokens[:, :P]))


@pytest.mark.parametrize(("num_patches", "num_frames"), [(P, 4), (5, 1)])
def test_positions_of_a_longer_history_or_another_image_size_are_refused(predictor, num_patches, num_frames):
    other = ViTPredictor(num_patches, num_frames, DIM, depth=2, heads=2, mlp_dim=16, dim_head=5)
    with pytest.raises(RuntimeError, match="pos_embedding"):
        other.load_state_dict(predictor.state_dict())


@pytest.mark.parametrize("count", [0, P - 1, P + 1, (FRAMES + 1) * P])
def test_tokens_that_are_not_whole_known_frames_are_refused(predictor, count):
    with pytest.raises(ValueError, match="num_hist"):
        predictor(torch.zeros(1, count, DIM))


def test_another_pooling_is_refused():
    with pytest.raises(ValueError, match=r"predictor\.pool"):
        ViTPredictor(P, 1, DIM, 1, 1, 8, pool="cls")
