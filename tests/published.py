"""Reading back what ``utils.pages`` writes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from utils.pages import DIGEST


def read_block(page: Path, name: str) -> str:
    """Return the text between a page's markers of that name."""
    _, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- begin generated: {name} -->")
    between, end, _ = rest.partition(f"<!-- end generated: {name} -->")
    assert begin and end, f"{page} lacks the markers of {name}"
    return between.strip("\n")


def figure_digest(path: Path) -> str | None:
    """Return the digest of the numbers that a PNG says it was drawn from; None if it does not."""
    with Image.open(path) as image:
        return image.info.get(DIGEST)
