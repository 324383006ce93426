"""Comparing the settings of two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from utils.moved_classes import current_names
from utils.moved_settings import current_settings


def same_settings(before: Mapping[str, Any], now: Mapping[str, Any], free: Sequence[str]) -> list[str]:
    """List the differences between two configs as "key: before -> now", without the ``free`` keys and all below them.

    A key that is new contradicts nothing: it came with a later version. What has another name since is the same.
    """
    return _differences(current_settings(current_names(dict(before))), now, free, "")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], free: Sequence[str], prefix: str) -> list[str]:
    found = []
    for key in sorted(before):
        path = f"{prefix}{key}"
        old, new = before[key], now.get(key)
        if path in free or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, free, f"{path}.")
        else:
            found.append(f"{path}: {old} -> {new}")
    return found
