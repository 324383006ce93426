"""The inverse model: its size, and what it sees."""

import pytest
import torch

from models.latent import Latent
from models.networks.inverse import InverseModel
from tests.builders import numbers


def test_at_the_sizes_of_dino_wm_it_has_about_as_many_parameters_as_published():
    with torch.device("meta"):
        network = InverseModel(196, 384, 10, 10)
    assert 1.2e6 < sum(parameter.numel() for parameter in network.parameters()) < 1.6e6


@pytest.mark.parametrize("part", ["visual", "proprio"])
def test_every_patch_of_start_and_goal_reaches_every_block(part):
    network = InverseModel(3, 6, 2, 4, horizon=2, width=8)
    torch.nn.init.normal_(network.head.weight)
    start, goal = (
        Latent(numbers(1, 1, 3, 6, seed=seed).requires_grad_(), numbers(1, 1, 2, seed=seed).requires_grad_())
        for seed in (1, 2)
    )
    proposed = network(start, goal)
    assert proposed.shape == (1, 2, 4)
    for block in range(2):
        wanted = [getattr(start, part), getattr(goal, part)]
        for gradient in torch.autograd.grad(proposed[0, block].sum(), wanted, retain_graph=True):
            assert gradient.abs().amax(-1).min() > 0


def test_sizes_that_mean_nothing_are_named():
    with pytest.raises(ValueError, match=r"proposal\.width must be at least 1, got 0"):
        InverseModel(3, 6, 2, 4, width=0)
