"""A world model of which every episode has some weights of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.interfaces import KVCache, Predictor
from models.speed.replacing import make_plain
from models.world_model import WorldModel

Weights = dict[str, Tensor]
"""Weights of a predictor by their names, (B, *shape): those of each episode."""


class AdaptedPredictor(Predictor):
    """A predictor that computes every row with the weights of the row's episode, all in one batch.

    Args:
        network: Plain; what is not among ``weights`` is its own. It is not changed.
        weights: Of B episodes.
        rows: Rows of each episode in turn.
    """

    def __init__(self, network: Predictor, weights: Mapping[str, Tensor], rows: int = 1) -> None:
        super().__init__()
        self.network, self._weights, self._rows = network, weights, rows
        self.activations_per_token = network.activations_per_token

    def of_episodes(self, episode: Tensor | None) -> Predictor:
        """See ``Predictor.of_episodes``."""
        if episode is None:
            return self
        numbers, counts = episode.unique_consecutive(return_counts=True)
        equal = bool((counts == counts[0]).all())  # else every row gets a copy of its own
        chosen, rows = (numbers, int(counts[0])) if equal else (episode, 1)
        return AdaptedPredictor(self.network, {name: value[chosen] for name, value in self._weights.items()}, rows)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (R, n, D') to (R, n, D')."""
        return self.extend(tokens, keep=False)[0]

    def extend(
        self, tokens: Tensor, cache: KVCache = (), wanted: int | None = None, keep: bool = True
    ) -> tuple[Tensor, KVCache]:
        """See the base class; the cache is that of the plain network."""
        call = _Extend(self.network)

        def one(weights: Mapping[str, Tensor], tokens: Tensor, cache: KVCache) -> tuple[Tensor, KVCache]:
            return functional_call(call, dict(weights), (tokens, cache, wanted, keep))

        weights = {f"network.{name}": value for name, value in self._weights.items()}
        grouped = [part.unflatten(0, (-1, self._rows)) for part in (tokens, *cache)]
        with sdpa_kernel(SDPBackend.MATH):  # the others would be computed one group after the other
            predicted, kept = torch.vmap(one)(weights, grouped[0], tuple(grouped[1:]))
        return predicted.flatten(0, 1), tuple(part.flatten(0, 1) for part in kept)


class _Extend(nn.Module):
    """``Predictor.extend`` as a forward pass, which is what weights can be given to."""

    def __init__(self, network: Predictor) -> None:
        super().__init__()
        self.network = network

    def forward(self, *arguments: Any) -> tuple[Tensor, KVCache]:
        """Call ``Predictor.extend``."""
        return self.network.extend(*arguments)


def plain_copy(predictor: Predictor) -> Predictor:
    """Copy a predictor: without fast modules, which the batched computation does not know, and frozen."""
    copied = copy.deepcopy(predictor).eval().requires_grad_(False)
    make_plain(copied)
    return copied


def adapted_model(
    model: WorldModel, weights: Mapping[str, Tensor], reuse_history: bool = True, plain: Predictor | None = None
) -> WorldModel:
    """Give episodes predictors of their own; all else is shared with ``model``, which stays as it is.

    Args:
        model: What they share.
        weights: Those of each episode.
        reuse_history: See ``WorldModel``.
        plain: A ``plain_copy`` of the model's predictor; None makes one.
    """
    adapted = copy.copy(model)
    adapted.__dict__["_modules"] = dict(model._modules)
    network = plain_copy(model.require_predictor()) if plain is None else plain
    adapted._modules["predictor"] = AdaptedPredictor(network, weights)
    adapted.reuse_history = reuse_history
    return adapted
