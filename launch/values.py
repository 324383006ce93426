"""What no config may hold, whatever the key: strangers' classes, infinite numbers, control characters."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from typing import Any

from launch.conf import class_settings, dotted, own_classes
from utils.printable import printable, shown

LONGEST_NAME = 300  # of a class, that an error repeats
TRUSTED = "trusted_targets"
"""Key of a list of further classes that may be built, anywhere in a config file of the user's or on the command line.

A run folder and a checkpoint cannot bring it: of both, nothing reaches a composed config but checked overrides.
"""


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """The config without its lists of trusted classes, which nobody else reads.

    Raises:
        ValueError: If it names a class that is neither an option's of ours nor trusted, or holds a number that is not
            finite or a text with control characters.
    """
    trusted = {dotted(name) for key, names in _items(config) if _last(key) == TRUSTED for name in _names(key, names)}
    remaining = _without_lists(config)
    for key, value in _items(remaining):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key}={value} must be a finite number")
        if isinstance(value, str) and any(unicodedata.category(letter) == "Cc" for letter in value):
            raise ValueError(f"{key}={shown(value)} must be a text without control characters")
        _check_class(key, value, own_classes() | trusted)
    return remaining


def _check_class(key: str, value: Any, known: frozenset[str]) -> None:
    is_target = _last(key) == "_target_"
    if not is_target and not (_last(key) in class_settings() and isinstance(value, str)):
        return
    if not isinstance(value, str) or dotted(value) not in known:
        named = printable(str(value), LONGEST_NAME)
        raise ValueError(
            f"{key}={named}: no option of this project names that class; if it is your own, list it in a config file "
            f"of yours or on the command line: +{TRUSTED}=[{named}]"
        )


def _names(key: str, names: Any) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key} must be a list of classes, each as package.module.Class, got {names}")
    return names


def _items(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value at any depth with the way to it: "planner.lr", "betas.1"."""
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in parts:
        path = f"{key}.{name}" if key else str(name)
        yield path, value
        yield from _items(value, path)


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _without_lists(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _without_lists(value) for name, value in node.items() if name != TRUSTED}
    return [_without_lists(value) for value in node] if isinstance(node, list) else node
