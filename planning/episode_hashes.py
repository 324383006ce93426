"""Names of episodes by what they are, so that an episode met twice is recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH = 16  # hex digits of an episode's hash
CONTENT = ("states", "goal_states")  # arrays of a ``plan_targets.npz`` that say what an episode is, beside its layout
LAYOUT = "layout/"


def episode_hashes(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Hash each episode's start, goal and layout; equal for equal numbers, whatever their type, seed and actions.

    Args:
        arrays: Those of a ``plan_targets.npz``: (B, ...) each.

    Returns:
        B texts of 16 hex digits.
    """
    return [digest[:LENGTH] for digest in _digests(arrays)]


def episode_set_hash(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Hash all starts, goals and layouts, in their order: 64 hex digits; see ``episode_hashes``."""
    return hashlib.sha256("".join(_digests(arrays)).encode()).hexdigest()


def _digests(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """SHA-256 of each episode."""
    names = sorted(name for name in arrays if name in CONTENT or name.startswith(LAYOUT))
    # + 0.0: a negative zero is the same place
    columns = {name: np.asarray(arrays[name], "<f8").reshape(len(arrays[name]), -1) + 0.0 for name in names}
    hashes = []
    for row in range(len(arrays[CONTENT[0]])):
        digest = hashlib.sha256()
        for name, column in columns.items():
            digest.update(f"{name} {column.shape[1]} ".encode() + column[row].tobytes())
        hashes.append(digest.hexdigest())
    return hashes
