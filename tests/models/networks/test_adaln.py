"""The predictor that the action modulates."""

import pytest
import torch

from models.networks.adaln import AdaLNPredictor, rotated, rotation
from models.speed.fast_paths import FastPaths
from tests.builders import numbers

SIZES = {"num_patches": 4, "num_frames": 3, "dim": 6 + 3 + 12, "visual_dim": 6, "proprio_dim": 3, "grid": (2, 2)}


@pytest.fixture
def predictor() -> AdaLNPredictor:
    torch.manual_seed(0)
    network = AdaLNPredictor(**SIZES, embed_dim=9, depth=2, heads=2).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.fixture
def tokens() -> torch.Tensor:
    """Three frames of four patches; the action part is the same in all patches of a frame."""
    action = numbers(2, 3, 1, 12, seed=1).expand(-1, -1, 4, -1)
    return torch.cat([numbers(2, 3, 4, 9), action], -1).flatten(1, 2)


@torch.no_grad()
def test_a_frame_depends_on_itself_and_the_past_only(predictor, tokens):
    changed = tokens.clone()
    changed[:, 8:] += 1
    before, after = predictor(tokens), predictor(changed)
    torch.testing.assert_close(after[:, :8], before[:, :8])
    assert (after[:, 8:, :9] - before[:, 8:, :9]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("wanted", [4, 8])
def test_going_on_from_a_cache_is_the_same_as_computing_all(predictor, tokens, wanted):
    cache = predictor.extend(tokens[:, : 12 - wanted])[1]
    found, kept = predictor.extend(tokens[:, 12 - wanted :], cache, wanted=4)
    torch.testing.assert_close(found, predictor(tokens)[:, -4:])
    assert kept[0].shape[2] == 12


@torch.no_grad()
def test_fast_modules_compute_the_same(predictor, tokens, monkeypatch):
    from models.speed.replacing import make_fast

    expected = predictor(tokens)
    make_fast(predictor, kernels=False, onednn=False, dropout=True)
    torch.testing.assert_close(predictor(tokens), expected)
    assert not FastPaths()._fuses(predictor, torch.bfloat16, torch.device("cpu"))


@torch.no_grad()
def test_prepared_weights_compute_the_same_up_to_rounding(predictor, tokens):
    expected = predictor(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        built = FastPaths()._build(
            predictor, torch.device("cpu"), torch.bfloat16, fused=False, compiled=False, packs=False
        )
        found = built(tokens)
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_an_untrained_block_leaves_tokens_as_they_are(tokens):
    network = AdaLNPredictor(**SIZES, embed_dim=9, depth=2, heads=2)
    assert all(not block.modulation[1].weight.any() for block in network.blocks)


def test_rotation_keeps_lengths_only_where_both_channels_of_a_pair_turn_alike():
    """Of eight channels a place turns two each: one frequency, so a pair turns by one angle."""
    cosine, sine = rotation(torch.tensor([[1, 2, 3]]), 8)
    values = numbers(1, 8)
    turned = rotated(values, cosine, sine)
    torch.testing.assert_close(turned.norm(), values.norm())
    torch.testing.assert_close(turned[:, 6:], values[:, 6:])
    assert (turned[:, :6] - values[:, :6]).abs().min() > 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dim": 20}, "needs concat_dim=1 and action_emb_dim=12"),
        ({"heads": 5}, "heads=5 must divide 12"),
        ({"grid": None}, "form no grid"),
    ],
)
def test_widths_that_do_not_fit_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        AdaLNPredictor(**{**SIZES, "embed_dim": 9, "heads": 2, **changes})
