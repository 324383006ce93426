"""What the record of a run folder may ask for: our own options by plain names, and plain values.

A folder may come from somebody else, and ``resume=<folder>`` must not run what it brings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, OverrideType, QuotedString

from launch.grammar import parse_override
from launch.values import TRUSTED

KEY = re.compile(r"[A-Za-z]\w*(\.[A-Za-z0-9]\w*)*")
OPTION = re.compile(r"[A-Za-z0-9][\w-]*")
REFERENCE = re.compile(r"\$\{[\w.]+\}")  # to another setting; with a colon it would call a resolver


def why_refused(item: Any, groups: Mapping[str, Sequence[str]]) -> str | None:
    """What speaks against a recorded override; None if nothing does.

    Args:
        item: As it stands in the file.
        groups: Options of every config group that the user has.
    """
    if not isinstance(item, str) or item.startswith("-"):
        return "it is no setting, a flag perhaps"
    override = parse_override(item)
    if override is None or override.type is OverrideType.DEL:
        return "it sets no value"
    group, package, value = override.key_or_group, override.package, override._value
    if not all(KEY.fullmatch(key) for key in (group if group not in groups else "x", package or "x")):
        return "its key is not made of plain names"
    parts = (package or group).split(".")
    if parts[0] in ("hydra", "defaults") or TRUSTED in parts:
        return "it would change how settings are read"
    if group == "run_dir":
        return "it would write elsewhere"
    if group in groups:
        return _why_no_option(value, groups[group])
    if package is not None:
        return f"there is no group {group}"
    return next((why for text in _texts(value) if (why := _why_no_plain(text))), None)


def _why_no_option(value: Any, options: Sequence[str]) -> str | None:
    if isinstance(value, Glob):
        return None
    names = value.list if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
    for name in names:
        text = name.text if isinstance(name, QuotedString) else str(name)
        if name is not None and not (text in options and OPTION.fullmatch(text)):
            return "that is no option of this project, nor of a folder that you named with --config-dir"
    return None


def _why_no_plain(text: str) -> str | None:
    if re.fullmatch(r"_\w+_", text) or text == TRUSTED:
        return "it names a class"
    return "it calls a resolver" if "${" in REFERENCE.sub("", text) else None


def _texts(value: Any) -> Iterator[str]:
    """All keys and texts in a value, of a sweep all that it may become."""
    if isinstance(value, QuotedString):
        yield value.text
    elif isinstance(value, ChoiceSweep):
        for each in value.list:
            yield from _texts(each)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (*_texts(key), *_texts(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    else:
        yield str(value)
