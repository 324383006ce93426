"""A whole transformer in one call each way against the plain one in float64."""

import copy

import pytest
import torch

from models.networks.vit import ViTPredictor
from models.speed import fast_paths, packed_transformer
from models.speed.cpu_kernels import build
from models.speed.fast_paths import FastPaths
from models.speed.linear import PreparedLinear
from models.speed.packed_transformer import PackedTransformer, spent_in_transformers
from models.speed.replacing import replace_in
from tests.builders import near

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")
# patches, frames, width, heads, width of a head, MLP, rows: less than a tile, no whole vectors, several frames; tokens
# as narrow as a head are keys and values themselves
SIZES = [
    (9, 1, 28, 2, 32, 40, 2),
    (37, 3, 45, 1, 32, 101, 3),
    (60, 1, 404, 2, 64, 2048, 1),
    (4, 1, 16, 16, 32, 512, 40),
    (61, 3, 28, 3, 64, 70, 2),
    (1, 1, 33, 2, 64, 40, 1),
    (197, 2, 64, 1, 64, 33, 1),
    (25, 2, 64, 4, 16, 128, 2),
]


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def predictor(patches, frames, width, heads, head, mlp):
    torch.manual_seed(0)
    vit = ViTPredictor(patches, frames, width, depth=2, heads=heads, mlp_dim=mlp, dim_head=head).eval()
    for parameter in vit.requires_grad_(False).parameters():
        parameter.add_(0.1 * drawn(*parameter.shape, seed=1))
    return vit


def agrees(sizes, rows):
    vit = predictor(*sizes)
    packed = PackedTransformer(vit.transformer)
    packed.pack()
    tokens = drawn(rows, sizes[0] * sizes[1], sizes[2]).requires_grad_()
    upstream, exact = drawn(*tokens.shape, seed=2), tokens.detach().double().requires_grad_()
    found, expected = packed(tokens)[0], copy.deepcopy(vit).double().transformer(exact)[0]
    near(found, expected, 1e-5)
    [ours], [theirs] = (
        torch.autograd.grad(*each) for each in ((found, tokens, upstream), (expected, exact, upstream.double()))
    )
    near(ours, theirs, 1e-5)
    with torch.no_grad():
        assert torch.equal(packed(tokens)[0], found), "memory that keeps nothing for a backward"


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_are_those_of_the_plain_one(sizes):
    agrees(sizes[:-1], sizes[-1])


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_in_bf16_it_is_as_near_to_float32_as_the_plain_one(sizes):
    if not build.has_tiles():
        pytest.skip("a processor without AMX")
    vit = predictor(*sizes[:-1])
    halved = copy.deepcopy(vit.transformer)
    replace_in(halved, torch.nn.Linear, lambda linear: PreparedLinear(linear, torch.bfloat16))
    packed = PackedTransformer(halved)
    packed.pack()
    tokens = drawn(sizes[-1], sizes[0] * sizes[1], sizes[2]).requires_grad_()
    upstream, results = drawn(*tokens.shape, seed=2), []
    for network in (packed, halved, vit.transformer):
        with torch.autocast("cpu", torch.bfloat16, enabled=network is not vit.transformer):
            found = network(tokens)[0]
        results.append((found, *torch.autograd.grad(found, tokens, upstream)))
    for ours, plain, exact in zip(*results, strict=True):
        assert ours.dtype == plain.dtype == torch.float32
        assert (ours - exact).norm() < 1.2 * (plain - exact).norm() < 0.05 * exact.norm()


def test_neither_threads_nor_reused_memory_change_a_bit():
    packed, before, results = (
        PackedTransformer(predictor(37, 1, 28, 2, 32, 64).transformer),
        torch.get_num_threads(),
        [],
    )
    packed.pack()
    tokens = drawn(3, 37, 28).requires_grad_()
    try:
        for threads in (1, 3, 1):
            torch.set_num_threads(threads)
            first, second = packed(tokens)[0], packed(2 * tokens)[0]  # two rooms at once
            results.append(torch.autograd.grad(first.square().sum() + second.sin().sum(), tokens)[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert 0.99 < sum(spent_in_transformers().values()) < 1.01


@pytest.mark.parametrize(("keep", "wanted"), [(True, None), (False, 9)])
def test_what_is_kept_or_left_out_is_computed_by_the_modules(keep, wanted):
    vit = predictor(9, 3, 28, 2, 32, 40)
    packed, tokens = PackedTransformer(vit.transformer), drawn(2, 18, 28)
    ours, theirs = (network(tokens, (), wanted, keep) for network in (packed, vit.transformer))
    assert torch.equal(ours[0], theirs[0]) and len(ours[1]) == len(theirs[1])


def test_planning_uses_it_with_the_weights_as_they_are_now(monkeypatch):
    monkeypatch.setattr(fast_paths, "is_large", lambda model: True)
    speed, vit = FastPaths(cpu_kernels=True), predictor(9, 1, 28, 2, 32, 40)
    assert speed._packs(vit, torch.device("cpu"))
    built = speed._build(vit, torch.device("cpu"), None, False, False, True)
    assert type(built.transformer) is PackedTransformer
    assert built.state_dict().keys() == vit.state_dict().keys()
    tokens, runs, run = drawn(2, 9, 28), [], PackedTransformer.run
    monkeypatch.setattr(PackedTransformer, "run", lambda *given: runs.append(1) or run(*given))
    for _ in range(2):
        built.load_state_dict(vit.state_dict())
        built.transformer.pack()
        near(built.extend(tokens, keep=False)[0], vit(tokens), 1e-5)
        for parameter in vit.parameters():
            parameter.mul_(1.1)
    assert len(runs) == 2
    near(copy.deepcopy(built)(tokens), built(tokens), 1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert not speed._packs(vit, torch.device("cpu")), "its weights are not prepared"


def test_planning_in_bf16_uses_it_where_there_are_tiles(monkeypatch):
    monkeypatch.setattr(fast_paths, "is_large", lambda model: True)
    speed, vit = FastPaths(cpu_kernels=True), predictor(9, 1, 28, 2, 32, 40)
    built = speed._build(vit, torch.device("cpu"), torch.bfloat16, False, False, True)
    assert (type(built.transformer) is PackedTransformer) == build.has_tiles()
    monkeypatch.setattr(packed_transformer, "has_tiles", lambda: False)
    built = speed._build(vit, torch.device("cpu"), torch.bfloat16, False, False, True)
    assert type(built.transformer) is not PackedTransformer


def test_a_transformer_that_it_cannot_compute_is_left_alone():
    assert not PackedTransformer.takes(predictor(4, 1, 16, 2, 32, 40).transformer.half())
