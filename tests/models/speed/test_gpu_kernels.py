"""Our GPU kernels: on a GPU as they are, elsewhere in Triton's interpreter, against what torch computes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.networks.vit import ViTPredictor
from models.speed.linear import PreparedLinear
from models.speed.replacing import make_fast, replace_in
from tests.builders import near

triton = pytest.importorskip("triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
TOLERANCE = 0.02 if DEVICE.type == "cuda" else 1e-5  # of the largest entry

from models.speed.fused_transformer import FusedTransformer  # noqa: E402  (there may be no Triton)
from models.speed.gpu_kernels import attention  # noqa: E402
from models.speed.gpu_kernels.add_norm import add_norm  # noqa: E402
from models.speed.gpu_kernels.gelu import gelu  # noqa: E402

OLD_TRITON = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9)
if DEVICE.type == "cpu" and OLD_TRITON and np.lib.NumpyVersion(np.__version__) >= "2.4.0":
    pytest.skip("this Triton's interpreter does not know this NumPy", allow_module_level=True)


def drawn(*shape, seed=0, dtype=DTYPE, scale=1.0):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    return values.to(DEVICE, dtype).requires_grad_()


def agree(found, expected, inputs, seed=9):
    """Values, and the gradients of a random projection, to all ``inputs``."""
    upstream = drawn(*found.shape, seed=seed, dtype=found.dtype).detach()
    near(found.float(), expected.float(), TOLERANCE)
    ours = torch.autograd.grad(found, inputs, upstream)
    theirs = torch.autograd.grad(expected, inputs, upstream.to(expected.dtype))
    for mine, plain in zip(ours, theirs, strict=True):
        near(mine.float(), plain.float(), TOLERANCE)


@pytest.mark.parametrize("tokens", [9, 32, 36, 50, 80])
def test_attention(tokens, monkeypatch):
    """Fewer tokens than a block, whole blocks, a short tail and long ones, and more keys than queries in a block."""
    for name, block_q, block_k in (("FORWARD", 32, 16), ("TO_QUERIES", 32, 32), ("TO_KEYS", 16, 32)):
        options = {**getattr(attention, name), "block_q": block_q, "block_k": block_k}
        monkeypatch.setattr(attention, name, options)
    qkv = drawn(2, tokens, 3 * 2 * 16)
    query, key, value = qkv.float().unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    agree(attention.attend(qkv, 2), expected, [qkv])


def test_attention_as_it_is_configured_survives_large_scores():
    qkv = drawn(1, 196, 3 * 64, scale=30.0)
    query, key, value = qkv.float().unflatten(-1, (3, 1, -1)).permute(2, 0, 3, 1, 4)
    found = attention.attend(qkv, 1)
    near(found.float(), F.scaled_dot_product_attention(query, key, value)[:, 0], TOLERANCE)
    assert torch.autograd.grad(found.sum(), qkv)[0].isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_more_heads_than_a_grid_s_other_axes_take():
    qkv = drawn(4100, 16, 3 * 16 * 16)
    query, key, value = qkv.float().unflatten(-1, (3, 16, 16)).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    agree(attention.attend(qkv, 16), expected, [qkv])


@pytest.mark.parametrize("width, known", [(8, False), (16, True), (24, False), (64, True), (128, True), (256, False)])
def test_widths_that_attention_knows(width, known):
    assert attention.takes_width(width) is known


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("adds", [True, False])
def test_sum_and_norm(rows, adds):
    values, change = drawn(rows, 20, dtype=torch.float32), drawn(rows, 24, seed=1)
    weight, bias = (drawn(20, seed=seed, dtype=torch.float32).detach() for seed in (2, 3))
    total, normed = add_norm(values, change if adds else None, weight, bias, 1e-5, DTYPE, 24)
    plain_total = values + change[:, :20] if adds else values + 0
    plain_normed = F.pad(F.layer_norm(plain_total, (20,), weight, bias), (0, 4))
    inputs = [values, change] if adds else [values]
    assert total.dtype == torch.float32 and normed.dtype == DTYPE
    assert not normed[:, 20:].any()
    agree(torch.cat([total, normed.float()], 1), torch.cat([plain_total, plain_normed], 1), inputs)
    alone = add_norm(values, change if adds else None, weight, bias, 1e-5, DTYPE)[0]
    agree(alone, plain_total, inputs)
    agree(add_norm(values, None, weight, bias, 1e-5, DTYPE)[1], F.layer_norm(values, (20,), weight, bias), [values])


def test_gelu():
    values = drawn(3, 1001, scale=3.0)
    agree(gelu(values), F.gelu(values.float()), [values])
    far = torch.tensor([-1e4, -20.0, 0.0, 20.0, 1e4], device=DEVICE, dtype=DTYPE, requires_grad=True)
    found = gelu(far)
    assert found.tolist() == F.gelu(far).tolist()
    assert torch.autograd.grad(found.sum(), far)[0].tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def predictors(dim_head, pads):
    """The same predictor twice: of prepared weights, and of our kernels with these."""
    torch.manual_seed(0)
    plain = ViTPredictor(
        num_patches=9, num_frames=3, dim=20, depth=2, heads=2, mlp_dim=30, dim_head=dim_head, dropout=0.1
    )
    plain = plain.to(DEVICE).eval().requires_grad_(False)
    make_fast(plain)
    replace_in(plain, torch.nn.Linear, lambda linear: PreparedLinear(linear, DTYPE, 8 if pads else 1))
    fused = ViTPredictor.__new__(ViTPredictor)
    fused.__dict__ = {**plain.__dict__, "_modules": dict(plain._modules)}
    fused.transformer = FusedTransformer(plain.transformer)
    return plain, fused


@pytest.mark.parametrize(("dim_head", "pads"), [(16, True), (12, False)])
def test_a_transformer_of_kernels(dim_head, pads):
    """A frame alone, further ones with a cache, several at once: as a planner asks for them."""
    plain, fused = predictors(dim_head, pads)
    first, second, three = (drawn(2, frames * 9, 20, seed=s, dtype=torch.float32) for s, frames in enumerate((1, 1, 3)))

    def continued(predictor):
        predicted, cache = predictor.extend(first)
        further, cache = predictor.extend(second, cache, wanted=9)
        return predicted + further + predictor.extend(first, cache, wanted=9, keep=False)[0]

    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"):
        agree(fused(first), plain(first), [first])
        agree(continued(fused), continued(plain), [first, second])
        agree(fused(three), plain(three), [three])
        agree(fused.extend(three, wanted=9)[0], plain.extend(three, wanted=9)[0], [three])
