"""Reading JSON files of ours that somebody else may have written, cut short or edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from utils.printable import printable
from utils.reading.opening import FileError, read_regular

MAX_BYTES = 4_000_000  # what such text can make the parser take stays below 200 MB
RESULTS_BYTES = 100_000_000  # of files with some numbers for each of up to 100,000 episodes
MAX_DEPTH = 32
MAX_DIGITS = 20  # of a whole number
AGAIN = "restore it from a copy, or delete it"

T = TypeVar("T", dict, list)


def read_json(path: Path, kind: type[T], remedy: str = AGAIN, most: int = MAX_BYTES) -> T:
    """Read a small JSON file.

    Args:
        path: The file.
        kind: Of its outermost value.
        remedy: What to do about a broken one, for the message.
        most: Bytes that it may have.

    Raises:
        FileError: If it is no JSON of that kind, or more deeply nested or longer than any of ours.
        OSError: If it cannot be read.
    """
    return parse_json(read_regular(path, most), kind, path, remedy, most)


def parse_json(content: bytes | str, kind: type[T], source: object, remedy: str = AGAIN, most: int = MAX_BYTES) -> T:
    """Parse JSON text, which ``source`` names in messages; raises as ``read_json`` does."""
    try:
        text = content if isinstance(content, str) else content.decode()
        if len(text) > most:
            raise ValueError(f"it is longer than {most / 1e6:g} MB")
        value = json.loads(text, parse_int=_whole)
        check_depth(value, MAX_DEPTH)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        reason = f"it has more than {MAX_DEPTH} levels" if isinstance(error, RecursionError) else str(error)
        reason = reason if content else "it is empty"
        raise FileError(f"{source} is no readable JSON ({printable(reason, 200)}); {remedy}") from None
    if not isinstance(value, kind):
        name = {dict: "an object", list: "a list"}[kind]
        raise FileError(f"{source} holds {type(value).__name__} instead of {name}; {remedy}")
    return value


def check_depth(value: Any, most: int) -> None:
    """Refuse nested dicts and lists that would exhaust the stack of who walks through them.

    Raises:
        ValueError: If there are more than ``most`` levels.
    """
    level = [value]
    for _ in range(most):
        level = [part for each in level for part in _parts(each)]
        if not level:
            return
    raise ValueError(f"it has more than {most} levels")


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)
