"""Encoding of what a simulator shows in the units of a world model."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from datasets.units.folding import unfold_actions
from datasets.units.normalizer import Normalizer
from envs.base import VectorEnv
from models.flops import ModelFlops
from models.latent import Latent, cat_latents
from models.world_model import WorldModel


class Observer:
    """An encoder of simulator states and frames, in the units that the model was trained in.

    Args:
        model: The world model; its encoder ``observes`` "visual" or "state".
        normalizer: Units of the training data.
        frames_per_chunk: Images drawn and encoded at a time, which bounds memory.
        action_quantiles: (Q, env_action_dim) raw actions of the training data at Q evenly spaced quantiles, the lowest
            first and the highest last; None if not known.
    """

    def __init__(
        self,
        model: WorldModel,
        normalizer: Normalizer,
        frames_per_chunk: int = 256,
        action_quantiles: Tensor | None = None,
    ) -> None:
        self.model, self.normalizer, self.frames_per_chunk = model, normalizer, frames_per_chunk
        self.action_quantiles = action_quantiles
        self._image_size: int | None = None  # of the frames seen so far

    @property
    def wants_frames(self) -> bool:
        """Whether images must be drawn for the model."""
        return self.model.encoder.observes == "visual"

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next(self.model.parameters()).device

    def wait(self) -> None:
        """Wait until the model's device has done all that was asked of it, so that a clock can be read."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @cached_property
    def flops(self) -> ModelFlops:
        """The arithmetic that the model's parts take."""
        return ModelFlops.of(self.model, self._image_size)

    @torch.no_grad()
    def features(self, states: Tensor, frames: Tensor | None) -> Tensor:
        """Visual features (B, T, P, D) of raw states (B, T, S) and, if wanted, their frames (B, T, 3, H, W)."""
        if not self.wants_frames:
            return self.model.encoder(self.normalizer.states_to_z(states).to(self.device))
        assert frames is not None, "an encoder of images needs frames"
        self._image_size = frames.shape[-1]
        chunks = [
            self.model.encoder(chunk.to(self.device)) for chunk in frames.flatten(0, 1).split(self.frames_per_chunk)
        ]
        return torch.cat(chunks).unflatten(0, frames.shape[:2])

    def raw_actions(self, blocks: Tensor) -> Tensor:
        """Raw actions (B, T * frameskip, env_action_dim), on the CPU, of z-scored blocks (B, T, A)."""
        return unfold_actions(self.normalizer.actions_to_raw(blocks.cpu()), self.normalizer.env_action_dim).float()

    def proprio(self, env: VectorEnv, states: Tensor) -> Tensor:
        """z-scored proprio (..., E_in) of raw states (..., S)."""
        return self.normalizer.proprio_to_z(env.proprio(states)).to(self.device)

    @torch.no_grad()
    def encode(self, states: Tensor, frames: Tensor | None, proprio: Tensor) -> Latent:
        """Latents (B, T) of raw proprio (B, T, E) and what ``features`` takes."""
        return self.model.embed(self.features(states, frames), self.normalizer.proprio_to_z(proprio).to(self.device))

    @torch.no_grad()
    def present(self, env: VectorEnv, states: Tensor, rows: Tensor | None = None) -> Latent:
        """Encode what episodes of ``env`` show now: latents (b, 1).

        Args:
            env: The simulator.
            states: (B, S) true states of all its episodes.
            rows: (b,) episodes to encode; None means all.
        """
        rows = torch.arange(len(states)) if rows is None else rows
        latents = []
        for chunk in rows.split(self.frames_per_chunk):
            frames = env.render(chunk)[:, None] if self.wants_frames else None
            seen = states[chunk][:, None]
            latents.append(self.encode(seen, frames, env.proprio(seen)))
        return cat_latents(latents, 0)
