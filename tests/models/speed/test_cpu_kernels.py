"""Our CPU kernels: what they compute against torch in float64, and that nothing stops where they cannot be built."""

import logging
import subprocess
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from models.networks.dinov2_vit import SelfAttention
from models.networks.vit import Attention
from models.speed.cpu_kernels import attention, between, build, masks
from models.speed.cpu_kernels.between import TYPES
from models.speed.cpu_kernels.build import can_load, check_kernels
from models.speed.fast_paths import FastPaths
from models.speed.replacing import make_fast, make_plain
from tests.builders import near
from tests.models.speed.test_packed_transformer import agrees as whole_transformer_agrees
from utils.machine import cpu_info

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="no C++ compiler")
TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 0.01}  # of the largest entry, against float64


@pytest.fixture
def unknown(monkeypatch, tmp_path):
    """As in a new process with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remembering = (build._load, build.can_load)
    for function in remembering:
        function.cache_clear()
    yield tmp_path / "cache"
    for function in remembering:
        function.cache_clear()


def plain(query, key, value, frame, mask=1):
    """(B, tokens, heads, d) each: one masked attention, written out."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    number, first = torch.arange(key.shape[2]) // frame, key.shape[2] - query.shape[2]
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(number[first:, None] < number, -torch.inf).softmax(-1)
    return (weights * mask @ value).transpose(1, 2)


def drawn(*shape, seed=0, scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def agree(sources, frame, tolerance, seed=5):
    """Values and all gradients."""
    exact = [source.detach().double().requires_grad_() for source in sources]
    expected = plain(*(part for source in exact for part in source.unbind(2)), frame)
    found = attention.attend(*sources, frame=frame)
    upstream = drawn(*found.shape, seed=seed).to(found.dtype)
    near(found.double(), expected, tolerance)
    ours = torch.autograd.grad(found, sources, upstream)
    for mine, theirs in zip(ours, torch.autograd.grad(expected, exact, upstream.double()), strict=True):
        near(mine.double(), theirs, tolerance)


# Frames of one token, less than a tile, whole vectors, DINO-WM's, one more, one more than a block of keys, several.
SIZES = [(1, 3), (5, 1), (9, 3), (16, 3), (64, 4), (196, 1), (196, 3), (197, 1), (208, 2), (225, 2), (481, 1)]


@pytest.mark.parametrize(("frame", "frames"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_of_one_projection(frame, frames, dtype):
    if dtype == torch.bfloat16 and not build.load().has_bf16():
        pytest.skip("a processor without bf16")
    joint = drawn(2, frames * frame, 3, 2, 64).to(dtype).requires_grad_()
    agree([joint], frame, TOLERANCE[dtype])


@pytest.mark.parametrize("width", [32, 96, 128])
def test_few_queries_of_the_last_frames_and_other_widths(width):
    query, rest = drawn(3, 18, 1, 2, width).requires_grad_(), drawn(3, 27, 2, 2, width, seed=1).requires_grad_()
    agree([query, rest], 9, 5e-6)
    key, value = (part[:, :, None] for part in rest.detach().unbind(2))
    agree([query, key.requires_grad_(), value.requires_grad_()], 9, 5e-6)
    if build.load().has_bf16():
        agree([part.detach().bfloat16().requires_grad_() for part in (query, rest)], 9, TOLERANCE[torch.bfloat16])


def test_rows_with_gaps_and_upstreams_that_are_views():
    wide = drawn(2, 9, 3, 2, 80).requires_grad_()
    agree([wide[..., :64]], 9, 5e-6)
    turned = drawn(2, 9, 3, 64, 2).transpose(3, 4).requires_grad_()
    found = attention.attend(turned, frame=9)
    upstream = drawn(2, 9, 64, 2).transpose(2, 3)
    copied = turned.detach().contiguous().requires_grad_()
    again = attention.attend(copied, frame=9)
    assert torch.equal(found, again)
    ours, theirs = torch.autograd.grad(found, turned, upstream), torch.autograd.grad(again, copied, upstream.clone())
    assert torch.equal(ours[0], theirs[0])


@pytest.mark.parametrize(("scale", "tolerance"), [(0.0, 5e-6), (6.0, 2e-4)])
def test_equal_and_huge_scores(scale, tolerance):
    agree([drawn(1, 50, 3, 2, 64, scale=scale).requires_grad_()], 25, tolerance)  # scores of 500 have 5 digits left


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_number_is_not_hidden(part, value):
    joint = drawn(1, 20, 3, 1, 32)
    joint[0, 3, part, 0, 0] = value
    found = attention.attend(joint.requires_grad_(), frame=20)
    gradient = torch.autograd.grad(found.sum(), joint)[0]
    exact = joint.detach().requires_grad_()
    expected = plain(*exact.unbind(2), 20)
    theirs = torch.autograd.grad(expected.sum(), exact)[0]
    assert torch.equal(found.isfinite(), expected.isfinite())
    assert gradient[~theirs.isfinite()].isfinite().sum() == 0


def test_parts_of_frames_and_what_does_not_go_together_are_refused():
    query, rest = drawn(1, 5, 1, 2, 32), drawn(1, 8, 2, 2, 32)
    with pytest.raises(ValueError, match=r"whole frames of 4 tokens.*queries \(1, 5, 2, 32\)"):
        attention.attend(query, rest, frame=4)
    with pytest.raises(ValueError, match="no more queries than keys"):
        attention.attend(drawn(1, 12, 1, 2, 32), rest, frame=4)
    with pytest.raises(ValueError, match="a multiple of 32 wide, got 48"):
        attention.attend(drawn(1, 4, 3, 2, 48), frame=4)
    with pytest.raises(ValueError, match="float32 or bf16 alone"):
        attention.attend(query[:, :4].bfloat16(), rest, frame=4)
    layer = Attention(24, heads=2, dim_head=32, dropout=0.0, tokens_per_frame=4)
    make_fast(layer, kernels=TYPES)
    with pytest.raises(ValueError, match="whole frames"):
        layer(drawn(1, 12, 24), (), 5)


def test_the_number_of_threads_changes_no_bit():
    joint = drawn(2, 40, 3, 4, 32).requires_grad_()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found = attention.attend(joint, frame=20)
            results.append((found, *torch.autograd.grad(found.square().sum(), joint)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_what_it_does_not_take():
    values = torch.zeros(1, 2, 3, 1, 32)
    assert attention.takes(values)
    assert not attention.takes(torch.zeros(1, 2, 3, 1, 48))
    assert not attention.takes(values[:0])
    assert not attention.takes(values.double()) and not attention.takes(values.half())
    assert not attention.takes(values.to("meta"))


@pytest.mark.parametrize("wanted", [1, 2, 3])
@pytest.mark.parametrize("past", [0, 1])
def test_the_predictor_s_attention_is_the_same_with_and_without(wanted, past, monkeypatch):
    layer = Attention(24, heads=2, dim_head=32, dropout=0.0, tokens_per_frame=4)
    tokens = drawn(2, 12, 24).requires_grad_()
    cache = tuple(drawn(2, 2, 4 * past, 32, seed=seed).requires_grad_() for seed in (1, 2)) if past else ()
    calls, attend = [], attention.attend
    monkeypatch.setattr(attention, "attend", lambda *given, **named: calls.append(given) or attend(*given, **named))
    results = []
    for change in (partial(make_fast, kernels=TYPES), make_fast, make_plain):
        change(layer)
        found, seen = layer(tokens, cache, wanted * 4)
        gradients = torch.autograd.grad(found.square().sum(), [tokens, *cache, *layer.parameters()])
        results.append([found, *seen, *gradients])
    assert len(calls) == 1
    for ours, sliced, plainly in zip(*results, strict=True):
        near(ours, plainly, 1e-5)
        near(sliced, plainly, 1e-5)


def test_masks_of_torch_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(attention, "attend", None)
    layer = Attention(24, heads=2, dim_head=32, dropout=0.1, tokens_per_frame=4).train()
    make_fast(layer, kernels=TYPES)
    layer(drawn(1, 4, 24))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_dropout_on_weights_is_that_of_the_mask_in_values_and_gradients(dtype):
    if dtype == torch.bfloat16 and not build.load().has_bf16():
        pytest.skip("a processor without bf16")
    joint = drawn(2, 3 * 37, 3, 2, 64).to(dtype).requires_grad_()
    torch.manual_seed(7)
    found = attention.attend(joint, frame=37, p=0.2)
    torch.manual_seed(7)
    mask = masks.entries(masks.drawn(0.2), 2 * 2 * 111, 111).view(2, 2, 111, 111)
    exact = joint.detach().double().requires_grad_()
    expected = plain(*exact.unbind(2), 37, mask.double())
    upstream = drawn(*found.shape, seed=1).to(dtype)
    near(found, expected, TOLERANCE[dtype])
    [ours], [theirs] = (
        torch.autograd.grad(*each) for each in ((found, joint, upstream), (expected, exact, upstream.double()))
    )
    near(ours, theirs, TOLERANCE[dtype])


def test_masks_drop_the_right_share_everywhere_and_neighbours_do_not_agree():
    kept = (masks.entries((123, masks.WHOLE // 10), 1000, 588) > 0).float()
    assert kept.mean().item() == pytest.approx(0.9, abs=0.002)
    assert kept.mean(0).std().item() == pytest.approx((0.09 / 1000) ** 0.5, rel=0.2), "columns"
    assert kept.mean(1).std().item() == pytest.approx((0.09 / 588) ** 0.5, rel=0.2), "rows"
    apart = kept - 0.9
    for one, other in ((apart[1:], apart[:-1]), (apart[:, 1:], apart[:, :-1])):
        assert abs((one * other).mean()) < 0.003 * 0.09 / 0.3
    again = masks.entries((124, masks.WHOLE // 10), 1000, 588) > 0
    assert (apart * (again.float() - 0.9)).mean().abs() < 0.001


def test_the_encoder_s_attention_is_the_same_with_and_without():
    layer, tokens, before = SelfAttention(64, 2), drawn(2, 17, 64), attention.Executed.flops
    with torch.no_grad():
        plainly = layer(tokens)
        assert attention.Executed.flops == before
        make_fast(layer, kernels=TYPES)
        near(layer(tokens), plainly, 1e-5)
        assert attention.Executed.flops > before
        near(layer.double()(tokens.double()), plainly.double(), 1e-5)


def test_its_arithmetic_is_counted():
    joint, before = drawn(3, 8, 3, 2, 32).requires_grad_(), attention.Executed.flops
    attention.attend(joint, frame=4).sum().backward()
    pairs = 4 * 4 + 4 * 8
    assert attention.Executed.flops - before == 3 * 2 * 7 * 2 * 32 * pairs


def test_a_damaged_build_is_made_anew_and_kept(unknown, monkeypatch):
    kept = unknown / "gradient-world-models" / f"kernels-{build._fingerprint(build.find_compiler())}.so"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"half of a file")
    built, compile_ = [], build._compile
    monkeypatch.setattr(build, "_compile", lambda *given: built.append(given) or compile_(*given))
    for _ in range(2):
        build._load.cache_clear()
        build.load()
    assert len(built) == 1 and list(kept.parent.iterdir()) == [kept]


def test_without_a_place_for_the_build_it_is_made_for_this_process(unknown):
    unknown.write_text("no folder")
    assert build.load().lanes() in (4, 8, 16)


def test_without_a_compiler_planning_goes_on_and_says_so_once(unknown, monkeypatch, caplog):
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    with caplog.at_level(logging.WARNING):
        assert not can_load() and not can_load()
    assert caplog.text.count("apt-get install g++") == 1
    with pytest.raises(
        ValueError, match=r"cpu_kernels=true: our kernels need a C\+\+ compiler .*; or set speed.cpu_kernels=auto"
    ):
        check_kernels()


def test_a_compiler_that_fails_is_quoted(unknown, monkeypatch):
    monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-no-such-flag"])
    built, compile_ = [], build._compile
    monkeypatch.setattr(build, "_compile", lambda *given: built.append(given) or compile_(*given))
    with pytest.raises(ValueError, match=r"not built by .*no-such-flag"):
        check_kernels()
    assert len(built) == 1


def test_a_compiler_that_hangs_is_given_up(unknown, monkeypatch, tmp_path):
    hanging = tmp_path / "slow"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("CXX", str(hanging))
    monkeypatch.setattr(build, "SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"not built: .*timed out"):
        check_kernels()


def test_a_wrong_choice_is_named():
    with pytest.raises(ValueError, match="cpu_kernels must be true, false or auto, got 'yes'"):
        FastPaths(cpu_kernels="yes")


@pytest.mark.parametrize("target", ["-march=x86-64", "-march=haswell"])
def test_processors_with_narrower_vectors_compute_the_same(target, unknown, monkeypatch):
    """Built for older processors; this one can run what is built for them."""
    flags = [target if flag == "-march=native" else flag for flag in build.FLAGS]
    if subprocess.run([build.find_compiler(), target, "-E", "-"], input=b"", capture_output=True).returncode:
        pytest.skip("another architecture")
    if "avx2" not in cpu_info():
        pytest.skip("an older processor")
    monkeypatch.setattr(build, "FLAGS", flags)
    check_kernels()
    assert build.load().lanes() == {"-march=x86-64": 4, "-march=haswell": 8}[target]
    for frame, frames in ((9, 3), (197, 1), (251, 1)):
        agree([drawn(1, frames * frame, 3, 2, 64).requires_grad_()], frame, 5e-6)
    whole_transformer_agrees((37, 1, 45, 1, 32, 101), 3)
    whole_transformer_agrees((37, 3, 28, 2, 64, 40), 2)
    norm = torch.nn.LayerNorm(45)
    near(between.add_norm(drawn(3, 45), None, norm, torch.bfloat16)[1], norm(drawn(3, 45)).bfloat16(), 0.005)


def test_float32_sdpa_agrees():
    """Torch's own kernel, which it stands in for."""
    joint = drawn(1, 196, 3, 2, 64)
    query, key, value = joint.permute(2, 0, 3, 1, 4)
    near(attention.attend(joint, frame=196).transpose(1, 2), F.scaled_dot_product_attention(query, key, value), 1e-5)
