"""Comparing the settings of two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from utils.moved_classes import current_names


def same_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], free: Sequence[str], prefix: str = ""
) -> list[str]:
    """List the differences between two configs as "key: before -> now", without the ``free`` keys and all below them.

    A key that is new contradicts nothing: it came with a later version. A class that has moved since is the same.
    """
    differences = []
    for key in sorted(before):
        path = f"{prefix}{key}"
        old, new = current_names(before.get(key)), now.get(key)
        if path in free or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            differences += same_settings(old, new, free, f"{path}.")
        else:
            differences.append(f"{path}: {old} -> {new}")
    return differences
