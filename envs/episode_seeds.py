"""Seeds of episodes: which ones an evaluation uses, and the random generator that belongs to each."""

from __future__ import annotations

import numpy as np

PUBLISHED_SEED = 99
WORD = 32  # bits; a published episode's seed fits into one, every other's fills two


def episode_seeds(seed: int, n_evals: int) -> list[int]:
    """Give each episode of an evaluation an environment seed; different ``seed`` share none.

    Seed 99 is the published protocol: episode n has 99 n + 1. Deviation: the releases gave episode n of every seed s
    the number s * n + 1, so that seeds repeated each other's episodes (episode 0 was the same for all). Here episode n
    of any other seed has (s + 1) * 2^32 + n.

    Args:
        seed: Of the evaluation, 0 to 2^31 - 1.
        n_evals: Number of episodes, >= 1.

    Raises:
        ValueError: If ``seed`` or ``n_evals`` is out of range.
    """
    if not 0 <= seed < 2**31 or not 1 <= n_evals <= 2**32 // PUBLISHED_SEED:
        raise ValueError(
            f"seed must be in [0, 2^31 - 1] and n_evals in [1, {2**32 // PUBLISHED_SEED}], got "
            f"seed={seed}, n_evals={n_evals}"
        )
    if seed == PUBLISHED_SEED:
        return [PUBLISHED_SEED * n + 1 for n in range(n_evals)]
    return [((seed + 1) << WORD) + n for n in range(n_evals)]


def redrawn_seed(seed: int, attempt: int) -> int:
    """Give the seed of an episode's draw number ``attempt`` (from 1), after those before were refused.

    It has more than 64 bits, so that no episode's first draw is among them.
    """
    return seed + (attempt << 2 * WORD)


def episode_generator(seed: int) -> np.random.RandomState:
    """Make the generator of an episode's random numbers from its environment seed, which may have 96 bits.

    It is the generator that the published seeds belong to; a larger seed is given to it as words of 32 bits.
    """
    if seed < 2**WORD:
        return np.random.RandomState(seed)
    words = [seed >> shift & 2**WORD - 1 for shift in range(0, seed.bit_length(), WORD)]
    return np.random.RandomState(words)
