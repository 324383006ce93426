"""The header of a weights file of ours: what the file says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models.foreign.inert_pickle import CheckpointError
from utils.moved_classes import current_names
from utils.reading.json_file import parse_json

HEADER = "world_model"  # entry of the metadata of a safetensors file
FORMAT = "1"
REMEDY = "restore it from a copy"


def read_about(text: str, path: Path) -> dict[str, Any]:
    """Read ``epoch`` and ``Checkpoint.about`` from the header of ``path``.

    Raises:
        CheckpointError: If the text is not of our making.
        FileError: If it is no JSON.
    """
    about = {} if text == "null" else parse_json(text, dict, f"{path}: its {HEADER} entry", REMEDY)
    if about.get("format") != FORMAT or "epoch" not in about:
        raise CheckpointError(
            f"{path} was not written by this project: its header has no {HEADER} entry of format {FORMAT}"
        )
    return checked({name: current_names(value) for name, value in about.items() if name != "format"}, path)


def checked(about: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Hold facts of a file against what is expected of them.

    Raises:
        CheckpointError: If one is of another kind.
    """
    for name, (is_right, expected) in EXPECTED.items():
        if name in about and not is_right(about[name]):
            raise CheckpointError(f"{path}: {name} in its {HEADER} entry must be {expected}; {REMEDY}")
    return dict(about)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) in (int, float) for each in value)


def _is_range(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(_are_numbers, value)))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(map(_are_numbers, value))


def _are_statistics(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_numbers, value.values()))


EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epoch": (_is_count, "a whole number from 0"),
    "step": (_is_count, "a whole number from 0"),
    "validation": (
        lambda value: isinstance(value, list) and bool(value) and all(map(_is_count, value)),
        "a list of trajectory numbers, at least one",
    ),
    "normalizer": (_are_statistics, "lists of numbers by name"),
    "statistics": (_are_statistics, "lists of numbers by name"),
    "layout": (_is_text, "a text or null"),
    "action_range": (_is_range, "two lists of numbers"),
    "action_quantiles": (_is_table, "at least two lists of numbers"),
    "parent": (_is_text, "a text or null"),
    "parent_sha256": (_is_text, "a text or null"),
    "encoder_sha256": (_is_text, "a text or null"),
}
