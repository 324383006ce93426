"""A proposal network: from where one is and where one wants to be to the action blocks in between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.interfaces import Proposal
from models.latent import Latent
from models.networks.vit import Transformer
from utils.ranges import DropoutRate, EmbeddingSize, Small, Width


class InitNet(Proposal):
    """Attention over the patches of start and goal, read by one learned query per action block.

    A patch token holds the start's and the goal's features of that patch, and both proprio embeddings: what differs
    between the two is seen without any attention, and there are half as many tokens. The head starts at zero, so an
    untrained network proposes the data set's mean action.

    Source: Parthasarathy et al., arXiv 2512.09929, ablation of the initialisation, g_theta(z_start, z_goal); the form
    of the network is ours.

    Args:
        num_patches: P, patches of a latent.
        visual_dim: D, features of a patch.
        proprio_dim: E, width of the proprio embedding.
        action_dim: A, numbers of an action block.
        horizon: T, blocks that are proposed.
        width: Width of the tokens.
        depth: Transformer blocks.
        heads: Attention heads.
        dim_head: Width of a head.
        mlp_dim: Hidden width of the blocks.
        dropout: In training only, in [0, 1).

    Raises:
        ValueError: If a size is not positive, or the dropout lies outside its range.
    """

    def __init__(
        self,
        num_patches: int,
        visual_dim: int,
        proprio_dim: int,
        action_dim: int,
        horizon: Small = 5,
        width: Width = 128,
        depth: Small = 3,
        heads: Small = 4,
        dim_head: EmbeddingSize = 32,
        mlp_dim: Width = 256,
        dropout: DropoutRate = 0.0,
    ) -> None:
        super().__init__()
        self.refuse_not_positive(
            horizon=horizon, width=width, depth=depth, heads=heads, dim_head=dim_head, mlp_dim=mlp_dim
        )
        if not 0 <= dropout < 1:
            raise ValueError(f"proposal.dropout must be in [0, 1), got {dropout}")
        self.horizon = horizon
        self.embed = nn.Linear(2 * (visual_dim + proprio_dim), width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, num_patches, width))
        self.queries = nn.Parameter(torch.randn(1, horizon, width))
        attention = {"heads": heads, "dim_head": dim_head, "dropout": dropout}
        self.transformer = Transformer(depth, width, mlp_dim, tokens_per_frame=num_patches + horizon, **attention)
        self.head = nn.Linear(width, action_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, start: Latent, goal: Latent) -> Tensor:
        """See ``Proposal.forward``."""
        patches = torch.cat([_per_patch(start), _per_patch(goal)], -1)  # (B, P, 2 (D + E))
        tokens = self.embed(patches) + self.positions
        queries = self.queries.expand(len(tokens), -1, -1).to(tokens.dtype)
        predicted, _ = self.transformer(torch.cat([tokens, queries], 1))
        return self.head(predicted[:, -self.horizon :])


def _per_patch(latent: Latent) -> Tensor:
    """(B, P, D + E) features of one frame (B, 1), its proprio embedding repeated in every patch."""
    visual, proprio = latent.visual.squeeze(1), latent.proprio
    return torch.cat([visual, proprio.expand(-1, visual.shape[1], -1)], -1)
