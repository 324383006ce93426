"""The formulas against torch's own count, and against the numbers in the documentation."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain.model import PlainViT
from models.flops import CountedFlops, ModelFlops, TransformerFlops, count_flops
from models.networks.adaln import AdaLNPredictor
from models.networks.dinov2_vit import DinoVisionTransformer
from models.networks.vit import ViTPredictor
from models.networks.vqvae import VQVAE
from models.speed.linear import OneDnnLinear

PREDICTOR = TransformerFlops(depth=6, dim=404, inner=16 * 64, mlp=2048)
ENCODER = TransformerFlops(depth=12, dim=384, inner=384, mlp=1536)
FULL = ModelFlops(9.17e9, PREDICTOR, patches=196, history=3)
LAST = ModelFlops(9.17e9, PREDICTOR, patches=196, history=1)


def count(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("backward", ["none", "inputs", "weights"])
def test_a_written_out_transformer_executes_what_the_formula_says(frames, backward):
    vit = ViTPredictor(5, 3, 24, 2, 2, 40, 8, dropout=0.0).requires_grad_(backward == "weights")
    plain, tokens = PlainViT(vit), torch.randn(1, frames * 5, 24, requires_grad=backward != "none")

    def run():
        done = plain(tokens)
        if backward != "none":
            done.sum().backward()

    sizes = TransformerFlops(depth=2, dim=24, inner=16, mlp=40)
    assert count(run) == sizes.total(frames * 5, backward)
    assert CountedFlops(plain, 24).total(frames * 5, backward) == count(run), "without the formula, too"


def test_a_forward_is_counted_where_the_first_module_gets_a_part_of_the_tokens():
    """What is split off tokens that require a gradient, without one, has no place in a graph to be found at."""
    adaln = AdaLNPredictor(4, 1, 20, 6, 2, (2, 2), embed_dim=10, depth=1, heads=2).requires_grad_(False)
    counted = CountedFlops(adaln, 20)
    assert 0 < counted.total(4) < counted.total(4, "inputs")


@pytest.mark.parametrize("frames", [1, 3])
def test_what_onednn_computes_is_counted_too(frames):
    layer, values = OneDnnLinear(404, 512), torch.randn(frames, 3, 404, requires_grad=True)
    assert count_flops(lambda: layer(values).sum().backward()) == 3 * 2 * 3 * frames * 404 * 512


def test_the_full_size_model_takes_what_the_documentation_says():
    for frames, numbers in {1: (8.7, 18.4, 26.2), 2: (19.3, 42.5, 58.0), 3: (31.8, 72.2, 95.5)}.items():
        for backward, number in zip(("none", "inputs", "weights"), numbers, strict=True):
            assert FULL.predict(frames, backward) / 1e9 == pytest.approx(number, abs=0.06)
    assert LAST.gradient_plan(5, 1, steps=1, closing=False) / 1e9 == pytest.approx(92, abs=0.5)
    assert LAST.rollout(5, 1) / 1e9 == pytest.approx(44, abs=0.5)
    assert FULL.training_step(5, 1, "adversarial") / 5e9 == pytest.approx(182, abs=0.5)
    assert FULL.training_step(5, 8, "adversarial") / 1e12 == pytest.approx(7.3, abs=0.05)
    assert 50 * 30 * 300 * LAST.rollout(5, 1) == pytest.approx(2e16, rel=0.03)
    longer = [FULL.predict(frames) for frames in (1, 2, 3, 3, 3)]
    assert FULL.rollout(5, 3) == sum(longer) and FULL.rollout(2, 3, given=3) == 2 * longer[-1]


def test_encoder_and_decoder_of_the_full_size_model():
    with torch.device("meta"):
        encoder, decoder = DinoVisionTransformer(384, 12, 6, 14, 4.0), VQVAE()
        frame, patches = torch.empty(1, 3, 196, 196), torch.empty(1, 196, 384)
    embedding = 2 * 196 * 588 * 384
    assert count(lambda: encoder(frame)) == pytest.approx(ENCODER.total(197) + embedding, rel=1e-6)
    assert (ENCODER.total(197) + embedding) / 1e9 == pytest.approx(9.2, abs=0.05)
    assert count(lambda: decoder(patches)) / 1e9 == pytest.approx(31.9, abs=0.05)
