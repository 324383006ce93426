"""Linear maps by oneDNN against torch's own, float32."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.speed import cpu_products as product
from models.speed.cpu_products import choose_library, library, linear
from models.speed.prepared_linear import Linear

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}  # float32 sums of 404 products, in another order
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


@pytest.fixture
def calls(monkeypatch):
    """Sizes of the products that oneDNN was asked for."""
    seen, ask = [], product._product

    def noted(values, weight, bias):
        seen.append(tuple(weight.shape))
        return ask(values, weight, bias)

    monkeypatch.setattr(product, "_product", noted)
    return seen


@pytest.mark.parametrize("shape", [(3, 7, 404), (404,), (0, 404), (2, 9, 808)], ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_all_gradients_are_those_of_torch(shape, biased, calls):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator)[..., -404:].requires_grad_()  # also rows with gaps between them
    weight = torch.randn(512, 404, generator=generator, requires_grad=True)
    bias = torch.randn(512, generator=generator, requires_grad=True) if biased else None
    inputs = (values, weight, *([bias] if biased else []))
    with library("onednn"):
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
    with library("onednn"):
        found = linear(values, weight)
        assert found.grad_fn.saved_tensors[0] is None
        found.sum().backward()
    assert calls == [(512, 404), (404, 512)]


def test_small_half_type_and_disabled_products_stay_with_torch(calls):
    large, small = Linear(404, 512), Linear(8, 8)
    with library("onednn"):
        small(torch.randn(2, 8))
        large.to(torch.bfloat16)(torch.randn(2, 404, dtype=torch.bfloat16))
        with torch.autocast("cpu", torch.bfloat16):
            assert large.float()(torch.randn(2, 404)).dtype == torch.bfloat16
    with library("torch"):
        large(torch.randn(2, 404))
    assert not calls
    with library("onednn"):
        part = large(torch.randn(2, 404), slice(100, 500))
    assert part.shape == (2, 400) and calls == [(400, 404)]


def test_the_state_is_that_of_a_torch_layer():
    assert Linear(4, 3).state_dict().keys() == nn.Linear(4, 3).state_dict().keys()


def test_an_unknown_library_is_refused_and_the_choice_ends_with_its_block(monkeypatch):
    with pytest.raises(ValueError, match="cpu_products must be one of auto, torch, onednn, got 'mkl'"):
        choose_library("mkl")
    before = product._Choice.onednn
    with library("onednn"):
        assert product._Choice.onednn
    assert product._Choice.onednn is before
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(ValueError, match="built without oneDNN"):
        choose_library("onednn")
    with library("auto"):
        assert product._Choice.onednn is False
