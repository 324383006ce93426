"""What a wrong path or name was probably meant to be."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

MOST_LISTED = 6
MOST_LOOKED_AT = 200  # entries of a folder; one with more is hardly where somebody keeps models or data


def hint(path: Path, holds: Callable[[Path], str | None]) -> str:
    """Say what is at a path, and which folder near it is probably meant.

    Args:
        path: Where nothing of use was found.
        holds: Names what a folder holds, if it is one of those looked for.

    Returns:
        For the end of an error: "there is no such folder; did you mean outputs/wall_single? it holds <...>".
    """
    for candidate in _near(path):
        with contextlib.suppress(OSError, ValueError):
            if candidate != path and (found := holds(candidate)):
                return f"{describe(path)}; did you mean {candidate}? it holds {found}"
    return describe(path)


def describe(path: Path) -> str:
    """Say what is at a path: nothing, a file, or a folder with which names in it."""
    try:
        if not path.exists():
            return "there is no such folder"
        if not path.is_dir():
            return "it is a file"
    except OSError as error:
        return f"it cannot be looked at ({error.strerror})"
    names = [entry.name for entry in _entries(path)]
    if not names:
        return "that folder is empty"
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"there is {', '.join(names[:MOST_LISTED])}{more}"


def _near(path: Path) -> Iterator[Path]:
    """Folders that may be meant, the likeliest first."""
    yield from list(path.parents)[:2]  # one too deep: .../checkpoints, or the file in it
    yield from _entries(path)  # one too high
    yield from (entry / path.name for entry in _entries(path.parent))  # a level is missing
    yield from _respelt(path)


def _respelt(path: Path) -> Iterator[Path]:
    """The path with its first name that does not exist, or else its last, replaced by those that nearly are it.

    A misspelt path may exist by now: the folder of a run is made below its ``ckpt_path``.
    """
    missing = [place for place in [path, *path.parents] if place.name and not os.path.lexists(place)]
    wrong = missing[-1] if missing else path
    names = [entry.name for entry in _entries(wrong.parent) if entry != wrong]
    for name in difflib.get_close_matches(wrong.name.strip(), names, n=3, cutoff=0.6):
        yield wrong.parent / name / path.relative_to(wrong)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:MOST_LOOKED_AT]
    except OSError:
        return []


def nearest_names(name: str, known: Iterable[str]) -> str:
    """Say which known keys a wrong one is near to: "; did you mean ...?", or else only "."."""
    known = [key for key in dict.fromkeys(known) if not name.startswith(f"{key}.")]
    last = re.split(r"[./]", name)[-1]
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.7)
    same = [key for key in known if key.rpartition(".")[2] == last and key != name]
    similar = [] if close or same else difflib.get_close_matches(last, [k.rpartition(".")[2] for k in known], n=1)
    ends = [key for key in known if similar and key.rpartition(".")[2] == similar[0]]
    found = list(dict.fromkeys([*same, *close, *ends]))[:3]
    return f"; did you mean {' or '.join(found)}?" if found else "."
