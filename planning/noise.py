"""Random numbers that belong to an episode, not to the batch it happens to sit in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class EpisodeNoise:
    """One random stream per episode.

    What an episode draws depends on its own seed only: not on how many others are planned with it, on which of them
    are solved already, or on how a batch is cut to fit the memory. Drawn on the CPU, so a GPU gives the same numbers.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    @classmethod
    def derive(cls, seed: int, episodes: Sequence[int], iteration: int, device: torch.device | str) -> EpisodeNoise:
        """Streams for one MPC iteration of some episodes; each (seed, episode, iteration) has a stream of its own."""
        seeds = [
            int(np.random.SeedSequence([seed, episode, iteration]).generate_state(1, np.uint64)[0] >> np.uint64(1))
            for episode in episodes
        ]
        return cls(seeds, device)

    def __len__(self) -> int:
        return len(self._generators)

    def randn(self, *shape: int) -> Tensor:
        """(B, *shape) standard normal numbers, the next of each stream."""
        drawn = torch.empty(len(self), *shape)
        for row, generator in zip(drawn, self._generators, strict=True):
            torch.randn(shape, generator=generator, out=row)
        return drawn.to(self.device)
