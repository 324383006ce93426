"""Where settings are now whose names older runs recorded, and users may still type."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

MOVED = {
    "cpu_kernels": "speed.cpu_kernels",
    "cpu_products": "speed.cpu_products",
    "initnet": "proposal",
    "method.speed": "speed",
    "training.compile": "speed.compile",
    "training.fast_dropout": "speed.fast_dropout",
    "training.fused_optimizers": "speed.fused_optimizers",
    "training.initnet_lr": "training.proposal_lr",
    "training.pad_widths": "speed.pad_widths",
}
"""Settings and groups by their names in releases before December 2026, and what they are called now."""

PLAIN_PLANS = "speed@method.speed=plain"
PLAIN_PLANS_KEPT = (
    "speed.compile=auto", "speed.cpu_kernels=auto", "speed.cpu_products=auto",
    "speed.fast_dropout=true", "speed.fused_optimizers=true", "speed.pad_widths=auto",
)  # fmt: skip
"""What stayed fast when the plans of the online method alone were to be plain."""


def current_overrides(overrides: Sequence[str]) -> list[str]:
    """Give the settings in a command line, which may hold other arguments too, their present names."""
    present = [_current_override(text) for text in overrides]
    if not any(text.lstrip("+") == PLAIN_PLANS for text in overrides):
        return present
    given = {text.lstrip("+").partition("=")[0] for text in present}
    return present + [text for text in PLAIN_PLANS_KEPT if text.partition("=")[0] not in given]


def _current_override(text: str) -> str:
    sign, name, value = re.findall(r"\A([+~]*)([^=]*)(.*)", text, re.DOTALL)[0]
    if name == "speed@method.speed":  # the group of the online method alone
        return f"{sign}speed{value}"
    old = next((old for old in MOVED if name == old or name.startswith(f"{old}.")), None)
    if old is None:
        return text
    return f"{sign}{MOVED[old]}{name.removeprefix(old)}={_current_value(old, value.removeprefix('='))}"


def current_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give settings that a run recorded their present names; those of the online method's group are left out."""
    found = copy.deepcopy(dict(config))
    for old, new in MOVED.items():
        group, _, name = old.rpartition(".")
        holder = found.get(group) if group else found
        if not isinstance(holder, dict) or name not in holder:
            continue
        value = holder.pop(name)
        if old != "method.speed":
            group, _, name = new.rpartition(".")
            (found.setdefault(group, {}) if group else found).setdefault(name, _current_value(old, value))
    return found


def current_tensor(name: str) -> str:
    """Give the part of a model in a tensor's name, ``part.layer.weight``, its present name."""
    part, dot, rest = name.partition(".")
    return MOVED.get(part, part) + dot + rest


def _current_value(name: str, value: Any) -> Any:
    """``training.pad_widths=true`` meant "where it acts"."""
    return "auto" if name == "training.pad_widths" and (value is True or str(value).lower() == "true") else value
