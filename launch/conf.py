"""What the config folder offers: groups, their options, and which classes they name."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
CLASS_TEXT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""A class as "module:Class", which some of our classes import."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def groups(folders: Sequence[Path] = (CONF,)) -> dict[str, list[str]]:
    """Options of every config group: {"env": ["point_maze", "pusht", "wall"], ...}."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.glob("*/**/*.yaml"):
            found.setdefault(path.parent.relative_to(folder).as_posix(), set()).add(path.stem)
    return {group: sorted(options) for group, options in sorted(found.items())}


def entries(folders: Sequence[Path] = (CONF,)) -> list[str]:
    """Names that ``--config-name`` takes."""
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


@functools.cache
def own_classes() -> frozenset[str]:
    """Every class of ours that a file in conf/ names, as "package.module.Class"."""
    named = (name for _, _, name in _named_classes())
    ours = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    return frozenset(name for name in named if name.split(".", 1)[0] in ours)


@functools.cache
def class_settings() -> frozenset[str]:
    """Settings of ours whose text is a class, such as the simulator of ``env.simulator``."""
    return frozenset(key for _, key, _ in _named_classes() if key != "_target_")


def dotted(name: str) -> str:
    """A class's name with a dot in the place of the colon."""
    return name.replace(":", ".")


@functools.cache
def _named_classes() -> list[tuple[Path, str, str]]:
    found = []
    for path in sorted(CONF.rglob("*.yaml")):
        for key, text in _texts(yaml.load(path.read_text(encoding="utf-8"), _Loader)):
            if key == "_target_" or CLASS_TEXT.fullmatch(text):
                found.append((path, key, dotted(text)))
    return found


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts below a node, each with the last key on the way to it."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, str):
        yield key, node
