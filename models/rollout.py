"""Rollouts from the same real frames, again and again: what no action can change is computed once."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from models.interfaces import KVCache, Predictor
from models.latent import Latent
from models.tokens import TokenLayout


class Dynamics(Protocol):
    """What a rollout needs of a world model, see ``WorldModel``."""

    action_encoder: nn.Module
    layout: TokenLayout
    num_hist: int
    reuse_history: bool

    def require_predictor(self) -> Predictor:
        """The predictor, or a ValueError."""
        ...


class Imagination:
    """Imagines what follows from actions, for a batch of episodes whose past is known.

    The predictor sees a window of the last frames, block-causal. As long as the window grows, a new frame leaves the
    others' keys and values as they are, so a step computes its one new frame. When the window is full it slides: its
    frames move to other positions and have to be computed again, but for real frames whose actions lie in the past:
    those are the same for every candidate and every step of an optimiser, and are computed once, when first needed.

    Args:
        model: With a predictor. Its ``reuse_history`` says whether anything is reused; with dropout nothing is.
        context: (B, F0) latents of the real frames so far, oldest first.
        past_actions: (B, F0 - 1, A) z-scored blocks executed between them.
        num_context: Frames the predictor sees at each step; None means ``num_hist``.
        tiles_proprio: See ``models/rollout_type.py``.

    Raises:
        ValueError: If ``num_context`` exceeds ``num_hist`` or the model has no predictor.
    """

    def __init__(
        self,
        model: Dynamics,
        context: Latent,
        past_actions: Tensor,
        num_context: int | None = None,
        tiles_proprio: bool = False,
    ) -> None:
        self.model, self.predictor, self.tiles_proprio = model, model.require_predictor(), tiles_proprio
        self.seen = model.num_hist if num_context is None else num_context
        if not 1 <= self.seen <= model.num_hist:
            raise ValueError(f"a rollout needs 1 <= num_context <= {model.num_hist} (num_hist), got {num_context}")
        self._reuses = model.reuse_history and not self.predictor.training
        first = max(0, context.num_frames - self.seen)  # older frames can never be seen
        self._present = context[:, context.num_frames - 1 :]
        embedded = model.action_encoder(past_actions[:, first:])
        self._past = model.layout.assemble(context[:, first : context.num_frames - 1], embedded)  # (B, c, P', D')
        self._caches: dict[int, KVCache] = {}

    def __call__(self, actions: Tensor, episode: Tensor | None = None, only_last: bool = False) -> Latent:
        """Latents (R, T) that follow from z-scored blocks ``actions`` (R, T, A); differentiable in them.

        Args:
            episode: (R,) which episode a row goes on from; None means row r from episode r.
            only_last: Return the last one (R, 1) alone; to join them all takes a pass over memory or two.
        """
        layout, embedded = self.model.layout, self.model.action_encoder(actions)
        present = self._present if episode is None else self._present[episode]
        frames = [layout.assemble(present, embedded[:, :1])]  # (R, 1, P', D') each, from the present on
        predicted: list[Tensor] = []
        cache: KVCache | None = None
        predictor = self.predictor.of_episodes(episode)
        for step in range(actions.shape[1]):
            newest, cache = self._step(predictor, frames, cache, episode, last=step + 1 == actions.shape[1])
            predicted = [newest] if only_last else [*predicted, newest]
            action = embedded[:, step + 1 : step + 2]
            if action.shape[1]:
                frames.append(self._seen_again(newest, action))
        return layout.split(newest if only_last else torch.cat(predicted, 1))

    def _step(
        self, predictor: Predictor, frames: list[Tensor], cache: KVCache | None, episode: Tensor | None, last: bool
    ) -> tuple[Tensor, KVCache | None]:
        """The frame (R, 1, P', D') after ``frames``, and what the next step may reuse."""
        known = self._past.shape[1]
        start = max(0, known + len(frames) - self.seen)  # where the window begins
        if not self._reuses:
            past = _rows(self._past[:, start:], episode)
            window = torch.cat([past, *frames[max(0, start - known) :]], 1)
            return predictor(window.flatten(1, 2)).view_as(window)[:, -1:], None
        if cache is None:
            cache, new = self._cache_of(start, episode), frames[max(0, start - known) :]
        else:
            new = frames[-1:]
        grows = not last and known + len(frames) < self.seen
        tokens = (new[0] if len(new) == 1 else torch.cat(new, 1)).flatten(1, 2)
        size = self.model.layout.tokens_per_frame
        predicted, kept = predictor.extend(tokens, cache, wanted=size, keep=grows)
        return predicted[:, None], kept if grows else None

    def _cache_of(self, start: int, episode: Tensor | None) -> KVCache:
        """Return the cache of the real frames from ``start`` on without the present, at a window's first positions."""
        if start >= self._past.shape[1]:
            return ()
        if start not in self._caches:
            self._caches[start] = self.predictor.extend(self._past[:, start:].flatten(1, 2))[1]
        return tuple(_rows(part, episode) for part in self._caches[start])

    def _seen_again(self, newest: Tensor, action: Tensor) -> Tensor:
        """An imagined frame as the predictor's next input, with the embedding (R, 1, a) of its action."""
        layout = self.model.layout
        return (
            layout.assemble(layout.split(newest), action) if self.tiles_proprio else layout.with_action(newest, action)
        )


def _rows(part: Tensor, episode: Tensor | None) -> Tensor:
    return part if episode is None else part[episode]
