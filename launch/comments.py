"""The comments of a YAML file, by key."""

from __future__ import annotations

import re
from pathlib import Path

import yaml


def comments(path: Path) -> dict[str, str]:
    """What stands behind each setting, or on the lines above it: {"training.epochs": "...", ...}."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    found: dict[str, str] = {}
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:  # a file of the user's; composing says so, if it is chosen
        return found
    if isinstance(root, yaml.MappingNode):
        _collect(root, "", lines, found)
    return found


def headline(path: Path) -> str:
    """The first comment of a file, which says what it is."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    said = (line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line)
    return next(said, "")


def _collect(node: yaml.MappingNode, prefix: str, lines: list[str], found: dict[str, str]) -> None:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        line = key.start_mark.line
        inner = isinstance(value, yaml.MappingNode) and not value.flow_style
        begin = value.end_mark.column if value.end_mark.line == line and not inner else key.end_mark.column
        behind = re.search(r"\s#\s*(.*)$", lines[line][begin:]) if value.end_mark.line == line or inner else None
        above = re.fullmatch(r"\s*#\s*(.*)", lines[line - 1]) if line else None
        if behind is not None:
            found[name] = behind[1].strip()
        elif above is not None and line > 1 and prefix:
            found[name] = above[1].strip()
        if inner:
            _collect(value, f"{name}.", lines, found)
