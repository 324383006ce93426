"""Linear maps by oneDNN against torch's own, float32."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.speed import onednn
from models.speed.fast_paths import FastPaths
from models.speed.linear import OneDnnLinear, SlicedLinear
from models.speed.onednn import check_onednn, has_onednn, linear
from models.speed.replacing import make_fast, make_plain

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}  # float32 sums of 404 products, in another order
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


@pytest.fixture
def calls(monkeypatch):
    """Sizes of the products that oneDNN was asked for."""
    seen, ask = [], onednn._product

    def noted(values, weight, bias):
        seen.append(tuple(weight.shape))
        return ask(values, weight, bias)

    monkeypatch.setattr(onednn, "_product", noted)
    return seen


@pytest.mark.parametrize("shape", [(3, 7, 404), (404,), (0, 404), (2, 9, 808)], ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_all_gradients_are_those_of_torch(shape, biased, calls):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator)[..., -404:].requires_grad_()  # also rows with gaps between them
    weight = torch.randn(512, 404, generator=generator, requires_grad=True)
    bias = torch.randn(512, generator=generator, requires_grad=True) if biased else None
    inputs = (values, weight, *([bias] if biased else []))
    found = linear(values, weight, bias)
    gradient = torch.randn(found.shape, generator=generator)
    ours = torch.autograd.grad(found, inputs, gradient)
    expected = F.linear(values, weight, bias)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    for mine, theirs in zip(ours, torch.autograd.grad(expected, inputs, gradient), strict=True):
        torch.testing.assert_close(mine, theirs, **TOLERANCE)
    assert len(calls) == (3 if values.numel() else 0), "oneDNN refuses empty products"


def test_frozen_weights_cost_no_gradient_and_no_memory(calls):
    values, weight = torch.randn(5, 404, requires_grad=True), torch.randn(512, 404)
    found = linear(values, weight)
    assert found.grad_fn.saved_tensors[0] is None
    found.sum().backward()
    assert calls == [(512, 404), (404, 512)]


def test_half_types_and_what_is_small_stay_with_torch(calls):
    layers = nn.Sequential(nn.Linear(404, 512), nn.Linear(8, 8))
    make_fast(layers, onednn=True)
    large, small = layers
    assert [type(layer) for layer in layers] == [OneDnnLinear, SlicedLinear]
    small(torch.randn(2, 8))
    large.to(torch.bfloat16)(torch.randn(2, 404, dtype=torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        assert large.float()(torch.randn(2, 404)).dtype == torch.bfloat16
    assert not calls
    part = large(torch.randn(2, 404), slice(100, 500))
    assert part.shape == (2, 400) and calls == [(400, 404)]
    make_plain(layers)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.Linear]


def test_an_unknown_library_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"speed\.cpu_products must be one of auto, torch, onednn, got 'mkl'"):
        FastPaths(cpu_products="mkl")
    check_onednn()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_onednn()
    with pytest.raises(ValueError, match="built without oneDNN"):
        check_onednn()
