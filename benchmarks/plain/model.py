"""A world model computed plainly: attention written out under a materialised mask, every frame encoded when needed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from models.latent import Latent
from models.networks.residual import ResidualViT
from models.networks.vit import Attention, FeedForward, ViTPredictor
from models.speed.replacing import make_plain
from models.world_model import WorldModel


class PlainViT(nn.Module):
    """The weights of a ``ViTPredictor``, its attention as softmax(Q K^T / sqrt(d) + mask) V.

    Args:
        vit: Its layers are used, not copied.
    """

    hidden: Tensor

    def __init__(self, vit: ViTPredictor) -> None:
        super().__init__()
        self.vit = vit
        frame = torch.arange(vit.num_frames * vit.num_patches) // vit.num_patches
        # what lies in a later frame
        self.register_buffer("hidden", frame[None, :] > frame[:, None], persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, F * P, dim) -> (B, F * P, dim)."""
        tokens = self.vit.dropout(tokens + self.vit.pos_embedding[:, : tokens.shape[1]])
        for layer in self.vit.transformer.layers:
            attention, feed_forward = cast(tuple[Attention, FeedForward], layer)
            tokens = tokens + self._attend(attention, tokens)
            tokens = tokens + feed_forward.net(tokens)
        return self.vit.transformer.norm(tokens)

    def _attend(self, attention: Attention, tokens: Tensor) -> Tensor:
        count = tokens.shape[1]
        query, key, value = (
            part.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for part in attention.to_qkv(attention.norm(tokens)).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        scores = scores.masked_fill(self.hidden[:count, :count], -math.inf)
        weights = attention.dropout(scores.softmax(-1))
        return attention.to_out((weights @ value).transpose(1, 2).flatten(2))


class PlainResidual(nn.Module):
    """The weights of a ``ResidualViT``, computed as ``PlainViT`` does."""

    def __init__(self, residual: ResidualViT) -> None:
        super().__init__()
        self.embed, self.vit, self.head = residual.embed, PlainViT(residual.vit), residual.head

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, F * P, dim) -> (B, F * P, dim)."""
        return tokens + self.head(self.vit(self.embed(tokens)))


class PlainModel(nn.Module):
    """A copy of a world model with the same weights, used in the plain way, by torch alone.

    Args:
        model: Stays as it is. Its predictor must be a transformer.

    Attributes:
        world: The copy.
        predictor: Its predictor, written out.
    """

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.world = copy.deepcopy(model)
        make_plain(self.world)
        predictor = self.world.predictor
        if isinstance(predictor, ResidualViT):
            self.predictor: nn.Module = PlainResidual(predictor)
        elif isinstance(predictor, ViTPredictor):
            self.predictor = PlainViT(predictor)
        else:
            raise ValueError(f"there is no plain way to compute a {type(predictor).__name__}: only predictor=vit")

    def as_shipped(self) -> PlainModel:
        """Copy a model as the earlier release planned with it: with dropout, and with gradients of all weights."""
        self.train().requires_grad_(True)
        return self

    def frozen(self) -> PlainModel:
        """Put the model into eval mode, with weights that take no gradients."""
        self.eval().requires_grad_(False)
        return self

    def in_training(self) -> PlainModel:
        """Copy a model as it is trained: everything but the encoder, with dropout."""
        self.train().requires_grad_(True)
        self.world.encoder.eval().requires_grad_(False)
        return self

    def encode(self, visual: Tensor, proprio: Tensor) -> Latent:
        """Frames (B, T, 3, S, S) and z-scored proprio (B, T, E_in) -> latents (B, T)."""
        return self.world.encode(visual, proprio)

    def tokens(self, latent: Latent, actions: Tensor) -> Tensor:
        """Predictor input (B, T, P, D') of latents (B, T) and z-scored action blocks (B, T, A)."""
        return self.world.layout.assemble(latent, self.world.action_encoder(actions))

    def predict(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T <= H, P, D') one model step later."""
        return self.predictor(tokens.flatten(1, 2)).view_as(tokens)

    def imagine(self, visual: Tensor, proprio: Tensor, actions: Tensor, context: int) -> Latent:
        """Latents (B, T + 1) of a start frame (B, 1), which is encoded here, and of what ``actions`` (B, T, A) do.

        Args:
            context: Frames that the predictor sees at most; what came before is predicted again with them.
        """
        layout = self.world.layout
        frames = self.tokens(self.encode(visual, proprio), actions[:, :1])
        for step in range(1, actions.shape[1]):
            newest = self.predict(frames[:, -context:])[:, -1:]
            embedded = self.world.action_encoder(actions[:, step : step + 1])
            frames = torch.cat([frames, layout.with_action(newest, embedded)], 1)
        frames = torch.cat([frames, self.predict(frames[:, -context:])[:, -1:]], 1)
        return layout.split(frames)


def plain_ways(model: WorldModel, run: Callable[[PlainModel], object]) -> dict[str, Callable[[], object]]:
    """Ways to ``run`` the plain model: as it was shipped, and in eval mode with frozen weights."""
    plain = {"shipped": PlainModel(model).as_shipped(), "frozen": PlainModel(model).frozen()}
    return {name: partial(run, one) for name, one in plain.items()}
