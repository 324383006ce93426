"""A goal-conditioned inverse model: the action blocks that lead from one latent towards another."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from models.interfaces import Proposal
from models.latent import Latent
from utils.ranges import EmbeddingSize, Small, Width


class InverseModel(Proposal):
    """A few numbers of each patch, of start and goal together, and an MLP over all patches.

    How many blocks lie between start and goal is not said. 1.4 M parameters at DINO-WM's sizes. The last layer starts
    at zero, so an untrained network proposes the data set's mean action.

    Source: goal-conditioned inverse dynamics as a policy or a proposal (GC-IDM, 1.5 M parameters); the form of the
    network is ours.

    Args:
        num_patches: P, patches of a latent.
        visual_dim: D, features of a patch.
        proprio_dim: E, width of the proprio embedding.
        action_dim: A, numbers of an action block.
        horizon: T, blocks that are proposed.
        patch_width: Numbers kept of a patch of both.
        width: Of the hidden layers.
        depth: Hidden layers.

    Raises:
        ValueError: If a size is not positive.
    """

    def __init__(
        self,
        num_patches: int,
        visual_dim: int,
        proprio_dim: int,
        action_dim: int,
        horizon: Small = 5,
        patch_width: EmbeddingSize = 16,
        width: Width = 384,
        depth: Small = 2,
    ) -> None:
        super().__init__()
        self.refuse_not_positive(horizon=horizon, patch_width=patch_width, width=width, depth=depth)
        self.horizon = horizon
        self.embed = nn.Linear(2 * visual_dim, patch_width)
        sizes = [num_patches * patch_width + 2 * proprio_dim] + [width] * depth
        hidden = [
            layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.LayerNorm(b), nn.GELU())
        ]
        self.hidden = nn.Sequential(*hidden)
        self.head = nn.Linear(width, horizon * action_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, start: Latent, goal: Latent) -> Tensor:
        """See ``Proposal.forward``."""
        patches = self.embed(torch.cat([start.visual, goal.visual], -1)).flatten(1)
        seen = torch.cat([patches, start.proprio[:, 0], goal.proprio[:, 0]], -1)
        return self.head(self.hidden(seen)).unflatten(-1, (self.horizon, -1))
