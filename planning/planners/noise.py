"""Random numbers that belong to an episode, not to the batch it happens to sit in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.units.folding import fold_actions, unfold_actions

AHEAD = 16  # draws that travel to a GPU together


class EpisodeNoise:
    """One random stream per episode.

    What an episode draws depends on its own seed only: not on how many others are planned with it, on which of them
    are solved already, or on how a batch is cut to fit the memory.

    Args:
        seeds: One per stream.
        device: Where the drawn numbers are wanted.
        drawn_there: Whether they are drawn on that device, which many numbers need; else they are drawn on the CPU, so
            that a GPU gives the same ones.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu", drawn_there: bool = False) -> None:
        self.device = torch.device(device)
        self._source = self.device if drawn_there else torch.device("cpu")
        self._generators = [torch.Generator(self._source).manual_seed(int(seed)) for seed in seeds]

    @classmethod
    def derive(
        cls,
        seed: int,
        episodes: Sequence[int],
        iteration: int,
        device: torch.device | str,
        drawn_there: bool = False,
    ) -> EpisodeNoise:
        """Make the streams of an MPC iteration; each (seed, episode, iteration) has a stream of its own."""
        seeds = [
            int(np.random.SeedSequence([seed, episode, iteration]).generate_state(1, np.uint64)[0] >> np.uint64(1))
            for episode in episodes
        ]
        return cls(seeds, device, drawn_there)

    def __len__(self) -> int:
        return len(self._generators)

    def randn(self, *shape: int) -> Tensor:
        """Draw standard normal numbers (B, *shape), the next of each stream."""
        return self._draw(1, shape)[0]

    def ahead(self, most: int, *shape: int) -> Iterator[Tensor]:
        """Yield what ``most`` calls of ``randn(*shape)`` would give, drawn several at a time.

        The device never waits for the host: a block is on its way while the last one is used.
        """
        if self.device.type != "cuda":
            yield from (self.randn(*shape) for _ in range(most))
            return
        for first in range(0, most, AHEAD):
            yield from self._draw(min(AHEAD, most - first), shape)

    def _draw(self, count: int, shape: tuple[int, ...]) -> Tensor:
        """Draw (count, B, *shape) numbers."""
        travels = self.device.type == "cuda" and self._source.type == "cpu"
        drawn = torch.empty(count, len(self), *shape, device=self._source, pin_memory=travels)
        for one in drawn:
            for row, generator in zip(one, self._generators, strict=True):
                torch.randn(shape, generator=generator, out=row)
        return drawn.to(self.device, non_blocking=True)  # from pinned memory, or the device would be waited for

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Draw uniform numbers (B, *shape) from [low, high), the next of each stream."""
        drawn = torch.empty(len(self), *shape, device=self._source)
        for row, generator in zip(drawn, self._generators, strict=True):
            row.uniform_(low, high, generator=generator)
        return drawn.to(self.device)


MOST_COLOURED = 10.0  # beyond, float32 has no room for the spectrum; 4 is nearly a constant and a ramp


def check_colour(beta: float) -> None:
    """Refuse an exponent that ``coloured`` cannot do.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """
    if not 0 <= beta <= MOST_COLOURED:
        raise ValueError(f"planner.noise_beta must be in [0, {MOST_COLOURED:g}], got {beta}")


def coloured(white: Tensor, beta: float, env_action_dim: int) -> Tensor:
    """Colour noise: its power falls with frequency as 1 / f ** beta over raw steps, its variance stays 1.

    Args:
        white: (..., T, A) standard normal action blocks.
        beta: See ``check_colour``; 0 gives ``white`` back, 2 is the colour of a random walk.
        env_action_dim: Length of one raw action; a block is A / env_action_dim of them, in time order.

    Source: Timmer and Koenig 1995 (spectrum), as iCEM uses it, Pinneri et al. 2020, section 3.1; the lowest frequency
    stands in for the constant part, whose power would be infinite.
    """
    if not beta:
        return white
    steps = unfold_actions(white, env_action_dim)
    length = steps.shape[-2]
    frequency = torch.fft.rfftfreq(length, device=white.device).clamp_min(1 / length)
    scale = frequency ** (-beta / 2)
    # a real signal's frequencies count twice, but for the constant part and, at even length, the highest
    twice = torch.full_like(scale, 2.0)
    twice[0] = 1.0
    if length % 2 == 0:
        twice[-1] = 1.0
    scale = scale * math.sqrt(length) / (twice * scale.square()).sum().sqrt()
    shaped = torch.fft.irfft(torch.fft.rfft(steps, dim=-2) * scale[:, None], n=length, dim=-2)
    return fold_actions(shaped, white.shape[-1] // env_action_dim)
