"""Rollouts that reuse keys and values: the plain rollout's numbers, for less arithmetic."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.networks.residual import ResidualViT
from models.rollout import Imagination
from models.speed.replacing import make_fast
from tests.builders import bare_model, batch_sizes, latent_of, near, numbers

TOLERANCE = 1e-4  # of the largest entry, float32: the same sums in another order


def rollouts(model, frames, steps, num_context=None, rows=None):
    """Imagined latents and the gradient of a weighted sum of them in the actions, with and without reuse."""
    context, past = latent_of(2, frames, model=model), numbers(2, frames - 1, 4, seed=5)
    found = []
    for reuse in (True, False):
        model.reuse_history = reuse
        count = 2 if rows is None else len(rows)
        actions = numbers(count, steps, 4, seed=6).requires_grad_()
        imagined = Imagination(model, context, past, num_context)(actions, rows)
        # not their squares, whose sum a final norm keeps constant
        weighted = [part * numbers(*part.shape, seed=7) for part in (imagined.visual, imagined.proprio)]
        (gradient,) = torch.autograd.grad(sum(part.sum() for part in weighted), actions)
        found.append((imagined, gradient))
    return found


@pytest.mark.parametrize("concat_dim", [0, 1])
@pytest.mark.parametrize("num_context", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_reusing_changes_no_prediction_and_no_gradient(concat_dim, num_context, frames, steps):
    model = bare_model(num_hist=3, concat_dim=concat_dim).requires_grad_(False)
    (fast, fast_gradient), (plain, plain_gradient) = rollouts(model, frames, steps, num_context)
    near(fast.visual.detach(), plain.visual.detach(), TOLERANCE)
    near(fast.proprio.detach(), plain.proprio.detach(), TOLERANCE)
    near(fast_gradient, plain_gradient, TOLERANCE)


def test_a_residual_predictor_reuses_its_vit_s_memory():
    model = bare_model(num_hist=3)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        predictor = ResidualViT(3, 3, model.layout.token_dim, width=8, depth=2, heads=2, dim_head=4, mlp_dim=8).eval()
        torch.nn.init.normal_(predictor.head.weight)
    model.predictor = predictor
    sizes = batch_sizes(predictor.vit)
    (fast, fast_gradient), (plain, plain_gradient) = rollouts(model.requires_grad_(False), 2, 4)
    assert len(sizes) > 8  # the past twice: as the window grows, and where it slides
    near(fast.visual.detach(), plain.visual.detach(), TOLERANCE)
    near(fast_gradient, plain_gradient, TOLERANCE)


def test_candidates_go_on_from_their_own_episode():
    model, rows = bare_model(num_hist=3).requires_grad_(False), torch.tensor([1, 1, 0, 1])
    (fast, fast_gradient), (plain, plain_gradient) = rollouts(model, 3, 4, rows=rows)
    near(fast.visual.detach(), plain.visual.detach(), TOLERANCE)
    near(fast_gradient, plain_gradient, TOLERANCE)
    assert not torch.allclose(fast.visual[2], fast.visual[1])


def test_the_past_is_computed_once():
    """For all calls together: with three real frames and a window of three, two of them, and one where it has moved."""
    model = bare_model(num_hist=3).requires_grad_(False)
    imagine = Imagination(model, latent_of(2, 3, model=model), numbers(2, 2, 4))
    sizes = batch_sizes(model.predictor)
    imagine(numbers(2, 4, 4))
    first = len(sizes)
    imagine(numbers(2, 4, 4))
    assert (first, len(sizes) - first) == (6, 4)


@pytest.mark.parametrize(("frames", "share"), [(1, 0.75), (3, 0.8)])
def test_reusing_saves_arithmetic(frames, share):
    """Horizon 5, window 3: 8.4 frames' worth instead of 12 from one real frame; from three, 11.1 instead of 15."""
    model = bare_model(num_hist=3).requires_grad_(False)
    counted = []
    for reuse in (True, False):
        model.reuse_history = reuse
        imagine = Imagination(model, latent_of(2, frames, model=model), numbers(2, frames - 1, 4))
        imagine(numbers(2, 5, 4))
        with FlopCounterMode(display=False) as counter:
            imagine(numbers(2, 5, 4))
        counted.append(counter.get_total_flops())
    assert counted[0] < share * counted[1]


def test_with_dropout_nothing_is_reused():
    """A frame drops other entries each time it is seen, as in training."""
    model = bare_model(num_hist=3).train()
    imagine = Imagination(model, latent_of(2, 1, model=model), numbers(2, 0, 4))
    seen = []
    model.predictor.transformer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    imagine(numbers(2, 4, 4))
    assert seen == [3, 6, 9, 9]


def test_more_frames_than_the_window_holds_are_refused():
    model = bare_model(num_hist=2)
    memory = model.predictor.extend(numbers(1, 6, model.layout.token_dim))[1]
    with pytest.raises(ValueError, match="got 9 tokens"):
        model.predictor.extend(numbers(1, 3, model.layout.token_dim), memory)


def test_attention_in_bf16_on_a_cpu():
    """Written out, since that is faster there: within the rounding of bf16 of what float32 gives."""
    attention = bare_model().predictor.transformer.layers[0][0]
    query, key, value = (numbers(2, 3, n, 8, seed=n) for n in (5, 9, 9))
    expected = attention.average(query, key, value)
    make_fast(attention)
    found = attention.average(*(part.bfloat16() for part in (query, key, value)))
    assert found.dtype == torch.bfloat16
    near(found, expected, 2e-2)
