"""The fast dropout against torch's own."""

import pytest
import torch

from models.networks.vit import Attention, ViTPredictor
from models.speed import dropout
from models.speed.dropout import FastDropout, keep_mask
from models.speed.replacing import make_fast, make_plain


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_entries_are_dropped_as_often_as_torch_does_and_the_mean_stays(p, dtype):
    values = torch.ones(400, 1003, dtype=dtype)
    module = FastDropout(p).train()
    kept = module(values)
    assert kept.dtype == dtype
    share = (kept == 0).double().mean().item()
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / values.numel()) ** 0.5)  # five standard errors
    largest = kept.max().item()
    assert largest == pytest.approx(1 / (1 - p), rel=1e-4 if dtype == torch.float32 else 1e-2)
    assert set(kept.unique().tolist()) == {0.0, largest}
    # neighbours come out of the same 64 bits, and must not know of each other
    zeros = (kept == 0).double().flatten()
    for lag in (1, 2, 3, 4):
        together = (zeros[lag:] * zeros[:-lag]).mean().item()
        assert together == pytest.approx(p * p, abs=0.005)


def test_the_gradient_is_the_mask():
    values = torch.randn(7, 5, requires_grad=True)
    dropped = FastDropout(0.4).train()(values)
    (gradient,) = torch.autograd.grad(dropped.sum(), values)
    torch.testing.assert_close(dropped, values.detach() * gradient)
    assert (gradient == 0).any() and (gradient > 1.6).any()


def test_nothing_is_drawn_without_effect_and_the_generator_decides():
    values, before = torch.randn(9), torch.get_rng_state()
    assert FastDropout(0.5).eval()(values) is values
    torch.testing.assert_close(FastDropout(0.0).train()(values), values)
    assert torch.equal(torch.get_rng_state(), before)
    first = keep_mask(values, 0.5)
    torch.set_rng_state(before)
    assert torch.equal(keep_mask(values, 0.5), first)
    assert not torch.equal(keep_mask(torch.empty(1000), 0.5), keep_mask(torch.empty(1000), 0.5))


def test_attention_written_out_equals_torchs_where_nothing_happens_to_be_dropped(monkeypatch):
    """Float32, 1e-6 of outputs and gradients, with keys of earlier frames and without."""
    monkeypatch.setattr(dropout, "keep_mask", lambda like, p: torch.ones_like(like))
    fast, plain = Attention(12, 2, 5, 0.1, 4).train(), Attention(12, 2, 5, 0.0, 4).train()
    make_fast(fast, dropout=True)
    plain.load_state_dict(fast.state_dict())
    for frames in (1, 3):
        tokens = torch.randn(2, frames * 4, 12, requires_grad=True)
        outputs = [module(tokens)[0] for module in (fast, plain)]
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-6)
        weight = torch.randn_like(tokens)
        gradients = [torch.autograd.grad((output * weight).sum(), tokens)[0] for output in outputs]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


def test_the_mean_over_many_masks_is_that_of_torchs_own():
    attention = Attention(12, 2, 5, 0.3, 4).train()
    tokens = torch.randn(1, 12, 12)
    with torch.no_grad():
        drawn = {}
        for fast in (True, False):
            make_fast(attention, dropout=fast)
            drawn[fast] = attention(tokens.expand(20000, -1, -1))[0]
    for moment in (torch.mean, torch.std):
        torch.testing.assert_close(moment(drawn[True], 0), moment(drawn[False], 0), rtol=0.05, atol=0.01)


def test_torchs_own_is_an_option():
    predictor = ViTPredictor(4, 3, 12, 1, 2, 16, dropout=0.3, emb_dropout=0.3).train()
    names = list(predictor.state_dict())
    make_fast(predictor, dropout=True)
    assert sum(isinstance(module, FastDropout) for module in predictor.modules()) == 5
    assert list(predictor.state_dict()) == names  # checkpoints stay as they were
    make_plain(predictor)
    assert not any(isinstance(module, FastDropout) for module in predictor.modules())
