"""The blocks, commands and links of a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.builders import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```", re.M | re.S)
MARK = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
COMMAND = re.compile(r"(?:python|make|torchrun|accelerate|srun|sbatch|conda|(?:\.venv/bin/)?uv)\s")


@dataclass(frozen=True)
class Piece:
    """A block, or a command of a page.

    Attributes:
        mark: why it is not run, if an HTML comment before the block says so.
    """

    page: Path
    line: int
    language: str
    text: str
    mark: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}: {' '.join(self.text.split())[:60]}"


def blocks(page: Path) -> Iterator[Piece]:
    """Everything between fences."""
    content = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(content):
        mark = MARK.search(content[: found.start()])
        line = content[: found.start()].count("\n") + 1
        yield Piece(page, line, found["language"], found["text"], mark and mark[1])


NAMED = re.compile(r"(?:# @package .*\n)?# (mine/\S+)\n")
"""The first line of a block that is a file of the reader's own folder."""


def named_files(page: Path) -> dict[str, str]:
    """The text of every block that names a file, by that name."""
    found = ((NAMED.match(block.text), block.text) for block in blocks(page))
    return {name[1]: text for name, text in found if name}  # whole, as a user copies it


def commands(page: Path) -> Iterator[Piece]:
    """Every line of ``sh`` blocks, of other blocks those that begin with "$ ", and every command in a sentence."""
    for block in blocks(page):
        for line in block.text.replace("\\\n", " ").splitlines():
            text = line if block.language == "sh" else line.removeprefix("$ ") if line.startswith("$ ") else ""
            if text.strip():
                yield Piece(page, block.line, "sh", text, block.mark)
    content = BLOCK.sub(lambda found: "\n" * found[0].count("\n"), page.read_text(encoding="utf-8"))
    for found in re.finditer(r"`([^`]+)`", content):
        text = " ".join(found[1].split())
        if COMMAND.match(text):
            yield Piece(page, content[: found.start()].count("\n") + 1, "sh", text, None)


def words_of_code(page: Path) -> Iterator[str]:
    """What stands in backquotes within sentences and tables, word by word."""
    for found in re.findall(r"`([^`\n]+)`", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        yield from found.split()


def links(page: Path) -> Iterator[str]:
    """Targets of links and pictures that are no addresses of the web."""
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in target:
            yield target


def anchors(page: Path) -> set[str]:
    """What can stand after # in a link to a page: its headings as GitHub spells them."""
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
