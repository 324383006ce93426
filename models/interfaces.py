"""Interfaces of the world model's replaceable parts."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from models.latent import Latent


class Encoder(nn.Module):
    """A map of what is observed of a frame to its patch features.

    Attributes:
        emb_dim: D.
        num_patches: P.
        grid: (h, w) of the patches, which are in the order of its rows; None: they form no grid.
        observes: "visual" (images) or "state" (z-scored simulator states).
        saved_with_model: Whether its tensors belong into a checkpoint although it is frozen.
        weights_sha256: Of the file its weights came from; None if there was none.
    """

    emb_dim: int
    num_patches: int
    grid: tuple[int, int] | None = None
    observes: str = "visual"
    saved_with_model: bool = True
    weights_sha256: str | None = None

    def refuse_other_sides(self, visual: Tensor, side: int, option: str) -> None:
        """Check that images (..., S, S) have the side that this encoder was built for, by the ``option`` of its group.

        Raises:
            ValueError: If they have another.
        """
        if tuple(visual.shape[-2:]) != (side, side):
            raise ValueError(
                f"encoder={option} was built with img_size={side}, got images of {tuple(visual.shape[-2:])}; "
                "set img_size to the images' side or collect data of that size"
            )

    @torch.no_grad()
    def calibrate(self, frames: Tensor) -> None:
        """Look at frames (n, 3, S, S) of the training data once, before a training from scratch; may do nothing."""


class Projector(nn.Module, ABC):
    """A learned map of an encoder's features, on which everything else is built: predictor, decoder, goals, planners.

    Options of the config group ``projector``. Beside its settings a constructor gets those of these sizes that it asks
    for: ``in_dim``, ``num_patches`` and ``grid``, D, P and [h, w] of the encoder; ``grid`` is None if there is none.

    Attributes:
        emb_dim: D of the result.
        num_patches: P of the result.
    """

    emb_dim: int
    num_patches: int

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Map the encoder's features (..., P, D) of each frame by itself to (..., num_patches, emb_dim)."""


KVCache = tuple[Tensor, ...]
"""What a predictor keeps of the frames it has seen, for a transformer the keys and values of each layer in turn.

Every tensor leads with the batch; empty before the first frame.
"""


class Predictor(nn.Module):
    """A map of the tokens of some frames (B, F * P', D') to those one model step later, causal over frames.

    Attributes:
        activations_per_token: Floats that a forward pass keeps for the backward pass, per token; an estimate.
    """

    activations_per_token: int

    def extend(
        self, tokens: Tensor, cache: KVCache = (), wanted: int | None = None, keep: bool = True
    ) -> tuple[Tensor, KVCache]:
        """Predict from further frames, which follow on those in ``cache``: the same as ``forward`` of all of them.

        What earlier frames do not need again is left to the predictor; this one has nothing to reuse.

        Args:
            tokens: (B, F * P', D') of the further frames.
            cache: Of the frames before; empty if there are none.
            wanted: Predictions returned, those of the last tokens, whole frames; None means of all further ones.
            keep: Whether a cache of all frames is wanted back; it takes room.

        Returns:
            Predictions (B, wanted, D'), and the cache of all frames, empty without ``keep``.
        """
        seen = torch.cat([*cache, tokens], 1)
        predicted = self(seen)
        first = predicted.shape[1] - (tokens.shape[1] if wanted is None else wanted)
        return predicted[:, first:], (seen,) if keep else ()

    def of_episodes(self, episode: Tensor | None) -> Predictor:
        """Return what predicts for rows of these episodes (R,); None: row r is of episode r. Here all share one."""
        return self


class Decoder(nn.Module):
    """A map of patch features (..., P, D) to images (..., 3, S, S) in [-1, 1].

    Attributes:
        img_size: S.
        calibrates: Whether ``calibrate`` does anything.
    """

    img_size: int
    calibrates = False

    def calibrate(self, frames: Tensor) -> None:
        """Look at frames (n, 3, S, S) of the training data once, before a training from scratch."""


class Proposal(nn.Module, ABC):
    """Guesses actions that may lead from a start to a goal; a planner may begin its search with them.

    Options of the config group ``proposal``. Beside its settings a constructor gets those of these sizes that it asks
    for: ``num_patches``, ``visual_dim``, ``proprio_dim`` (P, D and E of the latents) and ``action_dim`` (A).

    Attributes:
        horizon: T, action blocks that are proposed; a planner that uses them needs the same horizon.
        remembers: Whether ``remember`` does anything.
    """

    horizon: int
    remembers = False

    @staticmethod
    def refuse_not_positive(**sizes: int) -> None:
        """Check sizes of a constructor, by their names.

        Raises:
            ValueError: If one is below 1.
        """
        for key, value in sizes.items():
            if value < 1:
                raise ValueError(f"proposal.{key} must be at least 1, got {value}")

    @abstractmethod
    def forward(self, start: Latent, goal: Latent) -> Tensor:
        """Propose z-scored action blocks (B, T, A) that lead from ``start`` (B, 1) to ``goal`` (B, 1)."""

    def candidates(self, start: Latent, goal: Latent, num: int) -> Tensor:
        """Propose alternatives (B, n, T, A), 1 <= n <= ``num``, the first of them as ``forward``; this one has one."""
        return self(start, goal)[:, None]

    def remember(self, frames: Latent, actions: Tensor, numbers: Tensor, zero: Tensor) -> None:
        """Take in samples of the data, in training; for proposals that look things up. This one does nothing.

        Args:
            frames: (B, F) latents of consecutive model frames.
            actions: (B, F, A) z-scored block that was executed at each.
            numbers: (B, F) int64, >= 0, which frame of the data it is; the one a model step later has the next number.
            zero: (A,) z-scored block that does nothing in raw units.
        """
