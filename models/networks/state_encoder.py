"""An encoder without images: the simulator's state is the observation."""

from __future__ import annotations

from torch import Tensor

from models.interfaces import Encoder


class StateEncoder(Encoder):
    """Pass the z-scored state through as a single token.

    Attributes:
        emb_dim: S.
        num_patches: 1.
        observes: "state", i.e. (..., S) z-scored states in the place of images.
    """

    observes = "state"

    def __init__(self, state_dim: int) -> None:
        super().__init__()
        self.emb_dim = state_dim
        self.num_patches = 1

    def forward(self, visual: Tensor) -> Tensor:
        """States (..., S) -> (..., 1, S)."""
        return visual.unsqueeze(-2)
