"""A proposal without a network: what was done in the data between the most similar start and goal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.interfaces import Proposal
from models.latent import Latent
from utils import distributed
from utils.ranges import Count, EmbeddingSize, NonNegative, Small

EMPTY = 2**62  # number of a place that holds no frame; no chain of numbers reaches it
AT_A_TIME = 2**24  # distances computed at once


class Neighbors(Proposal):
    """The blocks between the two frames of one trajectory whose latents are nearest to start and goal.

    The distance of two frames is that of ``GoalDistance``: mean squared visual difference + ``alpha`` x proprio. That
    of a pair is the sum over both. Where fewer than T blocks lie between the two, zero raw actions follow.

    Training only fills a bank with frames of the data, each of them once; it needs one pass, and stops taking in frames
    when ``max_frames`` are there. In it, a frame's visual features are hashed to ``key_dim`` sums of shuffled entries
    with random signs, which keep squared distances on average; up to ``key_dim`` entries are kept as they are. The bank
    is saved with the model, 4 x max_frames x (key_dim + E + A) bytes, 22 MB as configured.

    Source: feature hashing, Weinberger et al. 2009, arXiv 0902.2206.

    Args:
        num_patches: P, patches of a latent.
        visual_dim: D, features of a patch.
        proprio_dim: E, width of the proprio embedding.
        action_dim: A, numbers of an action block.
        horizon: T, blocks that are proposed.
        farthest: Blocks between the two frames of a pair at most; None means T.
        max_frames: Frames in the bank at most.
        key_dim: Numbers kept of a frame's visual features.
        alpha: Weight of the proprio part.

    Raises:
        ValueError: If a size is not positive.
    """

    remembers = True
    keys: Tensor
    blocks: Tensor
    numbers: Tensor
    zero: Tensor
    order: Tensor
    signs: Tensor

    def __init__(
        self,
        num_patches: int,
        visual_dim: int,
        proprio_dim: int,
        action_dim: int,
        horizon: Small = 5,
        farthest: Small | None = None,
        max_frames: Count = 20_000,
        key_dim: EmbeddingSize = 256,
        alpha: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        self.refuse_not_positive(horizon=horizon, max_frames=max_frames, key_dim=key_dim)
        self.horizon, self.farthest, self.alpha = horizon, farthest or horizon, alpha
        entries = num_patches * visual_dim
        self.key_dim, self._missing = min(key_dim, entries), -entries % min(key_dim, entries)
        shape = self.key_dim + proprio_dim
        self.register_buffer("keys", torch.zeros(max_frames, shape))
        self.register_buffer("blocks", torch.zeros(max_frames, action_dim))
        self.register_buffer("numbers", torch.full((max_frames,), EMPTY))  # ascending; see Proposal.remember
        self.register_buffer("zero", torch.zeros(action_dim))
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("order", torch.randperm(entries + self._missing, generator=generator))
        self.register_buffer("signs", torch.randn(entries + self._missing, generator=generator).sign())

    @property
    def num_frames(self) -> int:
        """Frames in the bank."""
        return int((self.numbers < EMPTY).sum())

    def forward(self, start: Latent, goal: Latent) -> Tensor:
        """See ``Proposal.forward``."""
        return self.candidates(start, goal, 1)[:, 0]

    @torch.no_grad()
    def candidates(self, start: Latent, goal: Latent, num: int) -> Tensor:
        """See ``Proposal.candidates``: the nearest pairs, the nearest first, no two with the same first frame."""
        num = min(num, len(self.numbers))
        starts, goals = (self._keys(end)[:, 0].split(max(1, AT_A_TIME // len(self.numbers))) for end in (start, goal))
        with torch.autocast(self.keys.device.type, enabled=False):
            found = [self._nearest(*ends, num) for ends in zip(starts, goals, strict=True)]
        first, ahead = (torch.cat(part) for part in zip(*found, strict=True))  # (B, num) each
        steps = torch.arange(self.horizon, device=first.device)
        rows_of = (first[..., None] + steps).clamp(max=len(self.blocks) - 1)
        return torch.where((steps < ahead[..., None])[..., None], self.blocks[rows_of], self.zero)

    def _nearest(self, start: Tensor, goal: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """First frames (b, num) of the nearest pairs, and how many blocks later the second one is; 0: there is none."""
        square = self.keys.square().sum(1)
        from_start, from_goal = (square - 2 * end @ self.keys.T for end in (start, goal))  # (b, M), but for a constant
        nearest = torch.full_like(from_start, torch.inf)
        ahead = torch.zeros_like(nearest, dtype=torch.long)
        for blocks in range(1, min(self.farthest, len(square) - 1) + 1):
            follows = self.numbers[blocks:] - self.numbers[:-blocks] == blocks
            total = (from_start[:, :-blocks] + from_goal[:, blocks:]).masked_fill(~follows, torch.inf)
            ahead[:, :-blocks].masked_fill_(total < nearest[:, :-blocks], blocks)
            torch.minimum(nearest[:, :-blocks], total, out=nearest[:, :-blocks])
        first = nearest.topk(num, 1, largest=False).indices
        return first, ahead.gather(1, first)

    def _keys(self, frames: Latent) -> Tensor:
        """Numbers (B, F, K + E) whose squared distances are those of the frames."""
        visual, proprio = frames.visual.flatten(2).float(), frames.proprio.float()
        padded = torch.nn.functional.pad(visual, (0, self._missing))[..., self.order] * self.signs
        hashed = padded.unflatten(-1, (self.key_dim, -1)).sum(-1) / math.sqrt(visual.shape[-1])
        return torch.cat([hashed, proprio * math.sqrt(self.alpha / proprio.shape[-1])], -1)

    @torch.no_grad()
    def remember(self, frames: Latent, actions: Tensor, numbers: Tensor, zero: Tensor) -> None:
        """See ``Proposal.remember``. Of several processes all remember the samples of all."""
        self.zero.copy_(zero)
        known = self.num_frames
        seen = (numbers.flatten(), self._keys(frames).flatten(0, 1), actions.flatten(0, 1))
        everywhere = distributed.gather(tuple(part.cpu() for part in seen))
        if known == len(self.numbers):
            return
        added = [torch.cat(part).to(self.keys.device) for part in zip(*everywhere, strict=True)]
        new = ~torch.isin(added[0], self.numbers[:known])
        order = added[0].argsort(stable=True)
        again = torch.cat([new.new_zeros(1), added[0][order][1:] == added[0][order][:-1]])
        chosen = order[new[order] & ~again][: len(self.numbers) - known]
        held = (self.numbers, self.keys, self.blocks)
        joined = [torch.cat([kept[:known], part[chosen]]) for kept, part in zip(held, added, strict=True)]
        order = joined[0].argsort()
        for kept, part in zip(held, joined, strict=True):
            kept[: len(order)] = part[order].to(kept.dtype)
