"""Our CPU kernels between the products: residual, norm and GELU against torch, alone and in a transformer."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.networks.vit import Transformer, ViTPredictor
from models.speed import replacing
from models.speed.cpu_kernels import between, build, masks
from models.speed.cpu_transformer import KernelTransformer
from models.speed.replacing import make_fast, make_plain
from tests.builders import near

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 0.005}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("change_type", "dtype"), list(itertools.product(between.TYPES, between.TYPES)), ids=str)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(2, 21, 404), (3, 28), (2, 3, 9)], ids=str)
def test_residual_and_norm_are_those_of_torch_with_all_gradients(shape, p, change_type, dtype):
    norm = nn.LayerNorm(shape[-1])
    norm.weight.data, norm.bias.data = drawn(2, shape[-1], seed=3)
    exact_norm = nn.LayerNorm(shape[-1]).double()
    exact_norm.load_state_dict(norm.state_dict())
    values, change = drawn(*shape).requires_grad_(), drawn(*shape, seed=1).to(change_type).requires_grad_()
    torch.manual_seed(5)
    found = between.add_norm(values, change, norm, dtype, p)
    torch.manual_seed(5)
    mask = masks.entries(masks.drawn(p), values[..., 0].numel(), shape[-1]).view(shape) if p else torch.ones(())
    exact = [part.detach().double().requires_grad_() for part in (values, change)]
    total = exact[0] + exact[1] * mask.double()
    expected = total, exact_norm(total)
    upstream = drawn(*shape, seed=8), drawn(*shape, seed=9).to(dtype)
    ours = torch.autograd.grad(found, (values, change, norm.weight, norm.bias), upstream)
    theirs = torch.autograd.grad(expected, (*exact, *exact_norm.parameters()), [each.double() for each in upstream])
    for mine, right in zip((*found, *ours), (*expected, *theirs), strict=True):
        near(mine, right, TOLERANCE[mine.dtype])


@pytest.mark.parametrize("dtype", between.TYPES, ids=str)
@pytest.mark.parametrize("count", [5, 4096, 10_001])
def test_gelu_is_that_of_torch(dtype, count):
    values = (3 * drawn(count)).to(dtype).requires_grad_()
    exact, upstream = values.detach().double().requires_grad_(), drawn(count, seed=1).to(dtype)
    found, expected = between.gelu(values), F.gelu(exact)
    near(found, expected, TOLERANCE[dtype])
    [ours], [theirs] = (
        torch.autograd.grad(*each) for each in ((found, values, upstream), (expected, exact, upstream.double()))
    )
    near(ours, theirs, TOLERANCE[dtype])


def test_dropped_entries_of_gelu_pass_no_gradient_and_the_mean_stays():
    values = torch.full((40_000,), 2.0, requires_grad=True)
    found = between.gelu(values, 0.25)
    (gradient,) = torch.autograd.grad(found.sum(), values)
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(found == 0, gradient == 0)
    assert found.mean().item() == pytest.approx(F.gelu(torch.tensor(2.0)).item(), rel=0.01)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("frames", "wanted"), [(1, 9), (3, 9), (3, 27)])
def test_a_transformer_out_of_them_is_the_plain_one(frames, wanted, bf16, monkeypatch):
    monkeypatch.setattr(replacing, "LARGE", 1)
    torch.manual_seed(0)
    vit = ViTPredictor(9, 3, 28, depth=2, heads=2, mlp_dim=40, dim_head=32, dropout=0.1).eval()
    tokens, results = drawn(2, 9 * frames, 28).requires_grad_(), []
    for ours in (True, False):
        if ours:
            make_fast(vit, kernels=between.TYPES, between=True, dropout=True)
        else:
            make_plain(vit)
        assert type(vit.transformer) is (KernelTransformer if ours else Transformer)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            predicted, cache = vit.extend(tokens, wanted=wanted)
        loss = (predicted * drawn(*predicted.shape, seed=1)).sum()
        results.append([predicted, *cache, *torch.autograd.grad(loss, [tokens, *vit.parameters()])])
    for mine, right in zip(*results, strict=True):
        assert mine.dtype == right.dtype
        near(mine, right, 0.05 if bf16 else 1e-5)


def test_a_transformer_in_training_drops_and_repeats_itself_from_its_seed(monkeypatch):
    monkeypatch.setattr(replacing, "LARGE", 1)
    torch.manual_seed(0)
    vit = ViTPredictor(9, 1, 28, depth=2, heads=2, mlp_dim=40, dim_head=32, dropout=0.1).train()
    make_fast(vit, kernels=between.TYPES, between=True, dropout=True)
    tokens, seen = drawn(2, 9, 28), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        predicted = vit(tokens)
        seen.append((predicted, *torch.autograd.grad(predicted.square().sum(), [*vit.parameters()])))
    assert all(torch.equal(one, other) for one, other in zip(seen[0], seen[1], strict=True))
    assert not torch.equal(seen[0][0], seen[2][0])
    make_fast(vit, kernels=between.TYPES, between=True)  # masks of torch's own: left to torch
    torch.manual_seed(1)
    predicted = vit(tokens)
    torch.manual_seed(1)
    make_plain(vit)
    assert torch.equal(predicted, vit(tokens))
