"""Tables and figures of pages, which come from published numbers and can be compared with them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from utils.files import atomic_path, write_text
from utils.reading.json_file import read_json

DIGEST = "Numbers-SHA256"  # the entry of a PNG's metadata
DPI = 130


def digest(numbers: Any) -> str:
    """Return the SHA-256 of numbers, whatever the layout of their file is."""
    canonical = json.dumps(numbers, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def write_numbers(path: Path, numbers: Any) -> None:
    """Write JSON whose innermost lists and objects take one line each; no value may be NaN or infinite."""
    text = json.dumps(numbers, indent=1, allow_nan=False)
    for innermost in (r"\[[^\[\]{}]*\]", r"\{[^{}]*\}"):
        text = re.sub(innermost, lambda found: re.sub(r"\n\s*", " ", found[0]), text)  # no text holds a raw line end
    write_text(path, text + "\n")


def read_numbers(path: Path) -> dict[str, Any]:
    """Read what ``write_numbers`` wrote."""
    return read_json(path, dict)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write cells as a table; a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_block(page: Path, name: str, text: str) -> None:
    """Put a text between a page's markers of that name.

    Raises:
        ValueError: If the page does not have both markers, once each and in order.
    """
    begin, end, whole = require_markers(page, name)
    write_text(page, f"{whole.partition(begin)[0]}{begin}\n{text}\n{end}{whole.partition(end)[2]}")


def require_markers(page: Path, name: str) -> tuple[str, str, str]:
    """Return both markers, and the text of the page.

    Raises:
        ValueError: See ``write_block``.
    """
    begin, end = f"<!-- begin generated: {name} -->", f"<!-- end generated: {name} -->"
    whole = page.read_text(encoding="utf-8")
    if (whole.count(begin), whole.count(end)) != (1, 1) or whole.index(begin) > whole.index(end):
        raise ValueError(f"{page} needs the two lines {begin} and {end}, between which published numbers go")
    return begin, end, whole


def save_figure(figure: Any, path: Path, numbers: str) -> None:
    """Write a matplotlib figure as a PNG that names its numbers by their ``digest``."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={DIGEST: numbers})
