import pytest
import torch
from torch import nn

from models.networks.residual import ResidualMLP, ResidualViT
from tests.builders import numbers


def vit(num_frames: int = 2) -> ResidualViT:
    return ResidualViT(num_patches=3, num_frames=num_frames, dim=5, width=8, depth=1, heads=2, dim_head=4, mlp_dim=8)


def mlp() -> ResidualMLP:
    return ResidualMLP(num_patches=3, num_frames=1, dim=5, width=8, depth=2)


@pytest.mark.parametrize(("build", "frames"), [(vit, 2), (mlp, 1)])
def test_untrained_it_predicts_that_nothing_moves(build, frames):
    tokens = numbers(2, frames * 3, 5)
    assert torch.equal(build()(tokens), tokens)


@pytest.mark.parametrize(("build", "frames"), [(vit, 2), (mlp, 1)])
def test_a_few_steps_of_training_lower_the_error(build, frames):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        predictor = build()
    tokens = numbers(16, frames * 3, 5)
    wanted = tokens + 0.5 * tokens.roll(1, -1)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=1e-2)
    errors = []
    for _ in range(60):
        loss = (predictor(tokens) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert errors[-1] < 0.5 * errors[0]


def test_the_narrow_vit_is_causal_over_frames():
    predictor = vit().eval()
    nn.init.normal_(predictor.head.weight)
    tokens = numbers(1, 6, 5)
    later = tokens.clone()
    later[:, 3:] += 1
    assert torch.allclose(predictor(tokens)[:, :3], predictor(later)[:, :3], atol=1e-6)
    earlier = tokens.clone()
    earlier[:, :3] += 1
    assert (predictor(tokens)[:, 3:] - predictor(earlier)[:, 3:]).abs().max() > 1e-3


def test_the_mlp_sees_all_patches_of_its_frame():
    predictor = mlp()
    nn.init.normal_(predictor.net[-1].weight)
    tokens = numbers(1, 3, 5)
    changed = tokens.clone()
    changed[:, 2] += 1
    assert (predictor(tokens)[:, 0] - predictor(changed)[:, 0]).abs().max() > 1e-3


def test_the_mlp_refuses_a_history():
    with pytest.raises(ValueError, match="num_hist must be 1, got 3"):
        ResidualMLP(num_patches=1, num_frames=3, dim=4)


@pytest.mark.parametrize("predictor", [vit(), mlp()], ids=["vit", "mlp"])
def test_the_memory_estimate_is_positive(predictor):
    assert predictor.activations_per_token > 0
