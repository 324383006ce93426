"""How visual features, proprio embedding and action embedding of a frame become the predictor's tokens, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from models.latent import Latent


@dataclass(frozen=True)
class TokenLayout(ABC):
    """A layout of tokens: where in a frame's tokens each part lies.

    Attributes:
        num_patches: P.
        visual_dim: D.
        proprio_dim: E, width of the proprio embedding.
        action_dim: Width of the action embedding.
        proprio_repeat: How often the proprio embedding is repeated along the feature axis.
        action_repeat: How often the action embedding is.
    """

    num_patches: int
    visual_dim: int
    proprio_dim: int
    action_dim: int
    proprio_repeat: int = 1
    action_repeat: int = 1

    @property
    @abstractmethod
    def token_dim(self) -> int:
        """Width of a token."""

    @property
    @abstractmethod
    def tokens_per_frame(self) -> int:
        """Tokens of one frame."""

    @abstractmethod
    def assemble(self, latent: Latent, action: Tensor) -> Tensor:
        """Join a latent (B, T) and action embeddings (B, T, action_dim) to (B, T, tokens_per_frame, token_dim)."""

    @abstractmethod
    def split(self, tokens: Tensor) -> Latent:
        """The latent that tokens (B, T, tokens_per_frame, token_dim) stand for; the action part is dropped."""

    @abstractmethod
    def with_action(self, tokens: Tensor, action: Tensor) -> Tensor:
        """Overwrite the action part of ``tokens`` with the embeddings ``action`` (B, T, action_dim)."""

    @abstractmethod
    def state_part(self, tokens: Tensor) -> Tensor:
        """Everything but the action part: what a prediction is compared on."""

    @abstractmethod
    def parts(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The visual, proprio and action entries of all positions."""

    @abstractmethod
    def join(self, visual: Tensor, proprio: Tensor, action: Tensor) -> Tensor:
        """The inverse of ``parts``."""


@dataclass(frozen=True)
class FeatureConcat(TokenLayout):
    """``concat_dim: 1``: every patch token is [visual | proprio, repeated | action, repeated]."""

    @property
    def token_dim(self) -> int:
        """D + E * proprio_repeat + action_dim * action_repeat."""
        return self.visual_dim + self._proprio_width + self._action_width

    @property
    def _proprio_width(self) -> int:
        return self.proprio_dim * self.proprio_repeat

    @property
    def _action_width(self) -> int:
        return self.action_dim * self.action_repeat

    @property
    def tokens_per_frame(self) -> int:
        """P."""
        return self.num_patches

    def assemble(self, latent: Latent, action: Tensor) -> Tensor:
        """See the base class."""
        proprio = self._tile(latent.proprio, self.proprio_repeat)
        return torch.cat([latent.visual, proprio, self._tile(action, self.action_repeat)], dim=-1)

    def split(self, tokens: Tensor) -> Latent:
        """See the base class. The proprio of a frame is read from its first patch."""
        first = tokens[..., 0, self.visual_dim : self.visual_dim + self.proprio_dim]
        return Latent(tokens[..., : self.visual_dim], first)

    def with_action(self, tokens: Tensor, action: Tensor) -> Tensor:
        """See the base class."""
        return torch.cat([self.state_part(tokens), self._tile(action, self.action_repeat)], dim=-1)

    def state_part(self, tokens: Tensor) -> Tensor:
        """See the base class."""
        return tokens[..., : self.visual_dim + self._proprio_width]

    def parts(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the base class."""
        visual, proprio, action = tokens.split([self.visual_dim, self._proprio_width, self._action_width], dim=-1)
        return visual, proprio, action

    def join(self, visual: Tensor, proprio: Tensor, action: Tensor) -> Tensor:
        """See the base class."""
        return torch.cat([visual, proprio, action], dim=-1)

    def _tile(self, embedding: Tensor, repeat: int) -> Tensor:
        """(B, T, e) -> (B, T, P, e * repeat), the same values in every patch."""
        tiled = embedding.repeat(1, 1, repeat) if repeat > 1 else embedding
        return tiled[:, :, None].expand(-1, -1, self.num_patches, -1)


@dataclass(frozen=True)
class TokenConcat(TokenLayout):
    """``concat_dim: 0``: proprio and action are two extra tokens after the patches; all widths are equal."""

    def __post_init__(self) -> None:
        """Refuse widths that cannot share a token axis."""
        if not self.visual_dim == self.proprio_dim == self.action_dim:
            raise ValueError(
                "concat_dim=0 makes proprio and action tokens as wide as the visual ones: proprio_emb_dim and "
                f"action_emb_dim must be {self.visual_dim}, got {self.proprio_dim} and {self.action_dim}"
            )
        if self.proprio_repeat != 1 or self.action_repeat != 1:
            raise ValueError(
                "num_proprio_repeat and num_action_repeat have no effect with concat_dim=0; leave them at 1"
            )

    @property
    def token_dim(self) -> int:
        """D."""
        return self.visual_dim

    @property
    def tokens_per_frame(self) -> int:
        """P + 2."""
        return self.num_patches + 2

    def assemble(self, latent: Latent, action: Tensor) -> Tensor:
        """See the base class."""
        return torch.cat([latent.visual, latent.proprio[:, :, None], action[:, :, None]], dim=2)

    def split(self, tokens: Tensor) -> Latent:
        """See the base class."""
        return Latent(tokens[..., : self.num_patches, :], tokens[..., self.num_patches, :])

    def with_action(self, tokens: Tensor, action: Tensor) -> Tensor:
        """See the base class."""
        return torch.cat([self.state_part(tokens), action[:, :, None]], dim=2)

    def state_part(self, tokens: Tensor) -> Tensor:
        """See the base class."""
        return tokens[..., : self.num_patches + 1, :]

    def parts(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the base class."""
        visual, proprio, action = tokens.split([self.num_patches, 1, 1], dim=-2)
        return visual, proprio, action

    def join(self, visual: Tensor, proprio: Tensor, action: Tensor) -> Tensor:
        """See the base class."""
        return torch.cat([visual, proprio, action], dim=-2)


TOKEN_LAYOUTS: dict[int, type[TokenLayout]] = {0: TokenConcat, 1: FeatureConcat}
"""``concat_dim`` -> token layout."""
