"""How visual features, proprio embedding and action embedding of a frame become the predictor's tokens, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

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

    axis: ClassVar[int]
    """Along which the parts of a frame are joined."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int, int]:
        """Entries of the visual, proprio and action part along ``axis``."""

    @property
    @abstractmethod
    def token_dim(self) -> int:
        """Width of a token."""

    @property
    @abstractmethod
    def tokens_per_frame(self) -> int:
        """Tokens of one frame."""

    @abstractmethod
    def place(self, embedding: Tensor, repeat: int) -> Tensor:
        """Bring an embedding (B, T, e) into the form that it has within tokens."""

    def assemble(self, latent: Latent, action: Tensor) -> Tensor:
        """Join a latent (B, T) and action embeddings (B, T, action_dim) to (B, T, tokens_per_frame, token_dim)."""
        proprio = self.place(latent.proprio, self.proprio_repeat)
        return self.join(latent.visual, proprio, self.place(action, self.action_repeat))

    def split(self, tokens: Tensor) -> Latent:
        """Read the latent that tokens (B, T, tokens_per_frame, token_dim) stand for; the action part is dropped.

        The proprio of a frame is read from its first patch, and from its first repeat.
        """
        visual, proprio, _ = self.parts(tokens)
        return Latent(visual, proprio[..., 0, : self.proprio_dim])

    def with_action(self, tokens: Tensor, action: Tensor) -> Tensor:
        """Overwrite the action part of ``tokens`` with the embeddings ``action`` (B, T, action_dim)."""
        return torch.cat([self.state_part(tokens), self.place(action, self.action_repeat)], self.axis)

    def state_part(self, tokens: Tensor) -> Tensor:
        """Leave out the action part: a prediction is compared on the rest."""
        visual, proprio, _ = self.sizes
        return tokens.narrow(self.axis, 0, visual + proprio)

    def parts(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take the visual, proprio and action entries of all positions apart."""
        visual, proprio, action = tokens.split(self.sizes, self.axis)
        return visual, proprio, action

    def join(self, visual: Tensor, proprio: Tensor, action: Tensor) -> Tensor:
        """Invert ``parts``."""
        return torch.cat([visual, proprio, action], self.axis)

    @property
    def latent_proprio_dim(self) -> int:
        """Width of the proprio of a latent."""
        return self.proprio_dim

    def keep_proprio(self, embedding: Tensor) -> Tensor:
        """Bring a proprio embedding (B, T, E) into the form that latents keep, (B, T, latent_proprio_dim)."""
        return embedding


@dataclass(frozen=True)
class FeatureConcat(TokenLayout):
    """``concat_dim: 1``: every patch token is [visual | proprio, repeated | action, repeated]."""

    axis = -1

    @property
    def sizes(self) -> tuple[int, int, int]:
        """D, E * proprio_repeat, action_dim * action_repeat."""
        return self.visual_dim, self.proprio_dim * self.proprio_repeat, self.action_dim * self.action_repeat

    @property
    def token_dim(self) -> int:
        """Width of all three parts together."""
        return sum(self.sizes)

    @property
    def tokens_per_frame(self) -> int:
        """As many as patches, P."""
        return self.num_patches

    def place(self, embedding: Tensor, repeat: int) -> Tensor:
        """Map (B, T, e) to (B, T, P, e * repeat), the same values in every patch."""
        tiled = embedding.repeat(1, 1, repeat) if repeat > 1 else embedding
        return tiled[:, :, None].expand(-1, -1, self.num_patches, -1)


@dataclass(frozen=True)
class PatchwiseProprio(FeatureConcat):
    """As ``FeatureConcat``, but latents keep the proprio of every patch, one after the other.

    Predicted tokens of a frame differ in it. Models whose cost is the mean over all of these copies are planned with
    so; DINO-WM's looks at the first patch alone.
    """

    @property
    def latent_proprio_dim(self) -> int:
        """Width of the proprio of all patches, P * E."""
        return self.num_patches * self.proprio_dim

    def keep_proprio(self, embedding: Tensor) -> Tensor:
        """Repeat (B, T, E) for every patch."""
        return embedding.repeat(1, 1, self.num_patches)

    def assemble(self, latent: Latent, action: Tensor) -> Tensor:
        """See the base class."""
        proprio = latent.proprio.unflatten(-1, (self.num_patches, -1)).repeat(1, 1, 1, self.proprio_repeat)
        return self.join(latent.visual, proprio, self.place(action, self.action_repeat))

    def split(self, tokens: Tensor) -> Latent:
        """Read the latent that tokens stand for, of each patch's proprio the first repeat."""
        visual, proprio, _ = self.parts(tokens)
        return Latent(visual, proprio[..., : self.proprio_dim].flatten(-2))


@dataclass(frozen=True)
class TokenConcat(TokenLayout):
    """``concat_dim: 0``: proprio and action are two extra tokens after the patches; all widths are equal."""

    axis = -2

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
    def sizes(self) -> tuple[int, int, int]:
        """Tokens of the visual, proprio and action part: P, 1, 1."""
        return self.num_patches, 1, 1

    @property
    def token_dim(self) -> int:
        """Width of a visual feature, D."""
        return self.visual_dim

    @property
    def tokens_per_frame(self) -> int:
        """One more for proprio and action each, P + 2."""
        return sum(self.sizes)

    def place(self, embedding: Tensor, repeat: int) -> Tensor:
        """Map (B, T, e) to (B, T, 1, e)."""
        return embedding[:, :, None]


TOKEN_LAYOUTS: dict[int, type[TokenLayout]] = {0: TokenConcat, 1: FeatureConcat}
"""``concat_dim`` -> token layout."""


def token_layout(concat_dim: int, proprio_per_patch: bool = False) -> type[TokenLayout]:
    """Choose the token layout of an architecture.

    Raises:
        ValueError: If there is none such.
    """
    if concat_dim not in TOKEN_LAYOUTS:
        raise ValueError(f"concat_dim must be one of {sorted(TOKEN_LAYOUTS)}, got {concat_dim}")
    if proprio_per_patch and concat_dim == 0:
        raise ValueError("proprio_per_patch=true needs concat_dim=1: with 0, proprio is a token of its own")
    return PatchwiseProprio if proprio_per_patch else TOKEN_LAYOUTS[concat_dim]
