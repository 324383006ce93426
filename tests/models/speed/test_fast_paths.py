"""Each way of making planning fast: what the plain model imagines, its gradient, and the weights of the moment."""

import gc
import weakref

import pytest
import torch

from models.networks.vit import ViTPredictor
from models.rollout import Imagination
from models.speed.fast_paths import FastPaths
from models.speed.linear import PaddedLinear, PreparedLinear, SlicedLinear
from planning.cost import LatentGoalCost
from planning.objectives import GoalDistance
from tests.builders import bare_model, latent_of, near, numbers
from utils.runtime import autocast

OFF = {name: value for name, value in vars(FastPaths.plain()).items() if not name.startswith("_")}
PADDED = 0.02  # of the largest entry, bf16: the same products, which a kernel of another width sums in another order


def only(**on):
    return FastPaths(**(OFF | on))


def imagined(model, autocast=False):
    """A rollout through ``model``, and the gradient of its squares in the actions."""
    context, past = latent_of(2, 2, model=model), numbers(2, 1, 4, seed=5)
    actions = numbers(2, 4, 4, seed=6).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        rollout = Imagination(model, context, past)(actions)
    (gradient,) = torch.autograd.grad(rollout.visual.float().square().sum(), actions)
    return rollout.visual.detach(), gradient


def prepared(speed, model, autocast=False):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return speed.prepare(model)


@pytest.fixture
def model():
    return bare_model(num_hist=3).requires_grad_(False)


@pytest.mark.parametrize("option", [{}, {"reuse_history": True}, {"prepare_weights": True}])
def test_in_float32_nothing_is_cast(option, model):
    fast = prepared(only(**option), model)
    assert fast.predictor is model.predictor
    assert fast.reuse_history is option.get("reuse_history", False)
    assert model.reuse_history is True  # the model itself stays as it was


def test_prepared_weights_give_the_same_numbers(model):
    fast = prepared(only(prepare_weights=True), model, autocast=True)
    assert {part.weight.dtype for part in fast.predictor.modules() if isinstance(part, PreparedLinear)} == {
        torch.bfloat16
    }
    for found, expected in zip(
        imagined(fast, autocast=True), imagined(prepared(only(), model), autocast=True), strict=True
    ):
        assert torch.equal(found, expected)


def test_padded_widths_give_the_same_numbers(model):
    """Widths of 11 and 33 are none that a kernel likes."""
    fast = prepared(only(prepare_weights=True, pad_widths=True), model, autocast=True)
    shapes = {tuple(part.weight.shape) for part in fast.predictor.modules() if isinstance(part, PreparedLinear)}
    assert shapes == {(48, 16), (16, 16)}
    for found, expected in zip(
        imagined(fast, autocast=True), imagined(prepared(only(), model), autocast=True), strict=True
    ):
        near(found, expected, PADDED)


@pytest.mark.parametrize("rows", [None, slice(3), slice(3, None)])
def test_a_padded_product_is_exact_where_sums_are(rows):
    """Whole numbers, whose sums no order changes; zeros add nothing."""
    plain = SlicedLinear(5, 9)
    with torch.no_grad():
        plain.weight.copy_(torch.randint(-4, 5, (9, 5)))
        plain.bias.copy_(torch.randint(-4, 5, (9,)))
    values = torch.randint(-4, 5, (2, 3, 5)).float()
    rows = slice(None) if rows is None else rows
    padded = PreparedLinear(plain, torch.float32, multiple=8)
    assert torch.equal(padded(values, rows), plain(values, rows))
    assert torch.equal(padded(values)[..., rows], plain(values, rows))


def test_what_trains_can_be_padded_too():
    """The same whole numbers, forward and backward; only widths that are no multiple of 8 are touched."""
    values = torch.randint(-4, 5, (2, 3, 5)).float()
    found = []
    for padded in (False, True):
        layer = PaddedLinear(5, 9)
        with torch.no_grad():
            layer.weight.copy_(torch.arange(45).reshape(9, 5) % 7 - 3)
            layer.bias.copy_(torch.arange(9) - 4)
        inputs = values.clone().requires_grad_()
        outputs = layer.padded(inputs, torch.float32) if padded else layer(inputs)
        found.append([outputs, *torch.autograd.grad(outputs.square().sum(), [inputs, layer.weight, layer.bias])])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_weights_are_taken_over_as_they_are_now(model):
    speed = only(prepare_weights=True)
    before = imagined(prepared(speed, model, autocast=True), autocast=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    after = prepared(speed, model, autocast=True)
    expected = imagined(prepared(only(), model), autocast=True)
    found = imagined(after, autocast=True)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert not torch.equal(found[0], before[0])


def test_the_prepared_predictor_is_built_once(model):
    speed = only(prepare_weights=True)
    first, second = (prepared(speed, model, autocast=True).predictor for _ in range(2))
    assert first is second
    assert isinstance(first, ViTPredictor)
    assert prepared(speed, model).predictor is model.predictor  # without autocast


@pytest.mark.slow
def test_a_compiled_predictor_gives_the_same_numbers(model):
    """Within rounding: fused operations keep float32 between them where separate ones round to bf16."""
    fast = prepared(only(prepare_weights=True, compile=True), model, autocast=True)
    for found, expected in zip(imagined(fast, True), imagined(prepared(only(), model), True), strict=True):
        near(found, expected, 0.05)


def test_graphs_are_for_gpus():
    assert FastPaths().captures(torch.device("cuda"))
    assert not FastPaths().captures(torch.device("cpu"))
    assert not FastPaths.plain().captures(torch.device("cuda"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compile": "yes"}, "speed.compile must be true, false or auto, got 'yes'"),
        ({"capture": None}, "speed.capture must be true, false or auto, got None"),
        ({"pad_widths": True, "prepare_weights": False}, "speed.pad_widths=true has no effect"),
        ({"kernels": "some"}, "speed.kernels must be true, false or auto, got 'some'"),
        ({"kernels": True, "compile": True}, r"speed\.kernels=true needs .* and excludes speed\.compile=true"),
        ({"kernels": True, "prepare_weights": False}, r"speed\.kernels=true needs speed\.prepare_weights=true"),
    ],
)
def test_a_wrong_choice_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        FastPaths(**settings)


def test_kernels_are_refused_where_there_is_no_gpu_for_them(model):
    with pytest.raises(ValueError, match=r"speed\.kernels=true takes a transformer .*, an NVIDIA GPU"):
        prepared(only(prepare_weights=True, kernels=True), model, autocast=True)


def test_kernels_take_the_transformer_s_place(model, monkeypatch):
    """As on a GPU, but for the arithmetic: tests/models/speed/test_gpu_kernels.py is about that."""
    fused = pytest.importorskip("models.speed.fused_transformer")
    monkeypatch.setattr("models.speed.fast_paths.runs_kernels", lambda device: True)
    for choice, taken in ((True, True), ("auto", True), (False, False)):
        fast = prepared(only(prepare_weights=True, kernels=choice), model, autocast=True)
        assert isinstance(fast.predictor.transformer, fused.FusedTransformer) is taken
        assert not isinstance(model.predictor.transformer, fused.FusedTransformer)
    with torch.no_grad():
        model.predictor.transformer.norm.weight.mul_(3)
    speed = only(prepare_weights=True, kernels=True)
    again = prepared(speed, model, autocast=True)
    assert torch.equal(again.predictor.transformer.norm.weight, model.predictor.transformer.norm.weight)
    assert again.predictor is prepared(speed, model, autocast=True).predictor
    in_float32 = prepared(only(prepare_weights=True, kernels="auto"), model)
    assert in_float32.predictor is model.predictor


def test_padding_without_anything_prepared_is_refused(model):
    with pytest.raises(ValueError, match=r"speed\.pad_widths=true acts on weights in bf16 only"):
        FastPaths(pad_widths=True).prepare(model)


def test_planning_in_bf16_holds_no_actions_of_the_past(model):
    """Autocast remembers the cast of whatever takes gradients; over an evaluation that is every chunk of every step."""
    context, goal = latent_of(2, 2, model=model), latent_of(2, 1, model=model, seed=1)
    with autocast("bf16", torch.device("cpu"), keeps_casts=False):
        cost = LatentGoalCost(model, GoalDistance(), context, numbers(2, 1, 4), goal)
        actions = numbers(2, 1, 3, 4).requires_grad_()
        cost(actions).sum().backward()
        remembered = weakref.ref(actions)
        del actions
        gc.collect()
        assert remembered() is None
