"""The documentation site: built strictly, whole, and readable from a folder without a network."""

import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.builders import REPOSITORY

FETCHED = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?([^\"'\s>]+)")
FOLLOWED = re.compile(r"<a\b[^>]*?\bhref=\"([^\"]+)\"")
NAMED = re.compile(r"\b(?:id|name)=\"([^\"]+)\"")
FONT_OR_PICTURE = re.compile(r"url\(\s*[\"']?(?:https?:)?//")


@pytest.mark.slow
def test_the_site_is_whole_and_fetches_nothing(spawn, tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    process = spawn(command, cwd=REPOSITORY, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    said, _ = process.communicate()
    assert process.returncode == 0 and not said, said

    pages = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html") if path.name != "404.html"}
    built = {str(path.relative_to(tmp_path)) for path in pages}
    assert {f"{page.stem}.html" for page in (REPOSITORY / "docs").glob("*.md")} < built
    assert {reference(module) for module in modules()} < built, "the API reference has every module"
    names = {path: set(NAMED.findall(text)) for path, text in pages.items()}
    for page, text in pages.items():
        for target in FETCHED.findall(text):
            assert leads_to(page, target, names) is not None, f"{page} fetches {target}"
        for target in FOLLOWED.findall(text):
            web = urlsplit(target).scheme in ("http", "https")
            assert web or leads_to(page, target, names) is not None, f"{page} leads to {target}"
    assert not [path for path in tmp_path.rglob("*.css") if FONT_OR_PICTURE.search(path.read_text(encoding="utf-8"))]
    words = (tmp_path / "search" / "search_index.js").read_text(encoding="utf-8")
    assert words.startswith("var __index") and all(f'"{page}' in words for page in built), "the search knows all pages"


def modules() -> list[Path]:
    """Every public module below the rooms that the site's settings name."""
    settings = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    (reference,) = (each["api-autonav"] for each in settings["plugins"] if "api-autonav" in each)
    rooms = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    assert rooms - {"tests"} == set(reference["modules"])
    return [
        path for room in reference["modules"] for path in (REPOSITORY / room).rglob("*.py") if path.stem != "__main__"
    ]


def reference(module: Path) -> str:
    """The page of a module; a package is its folder's index."""
    path = module.relative_to(REPOSITORY).with_suffix(".html")
    return str("reference" / (path.with_name("index.html") if path.stem == "__init__" else path))


def leads_to(page: Path, target: str, names: dict[Path, set[str]]) -> Path | None:
    """The file of the site behind a link; None for an address of the web, a missing file or a missing anchor."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return None
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    found = path.is_file() and (not parts.fragment or unquote(parts.fragment) in names.get(path, set()))
    return path if found else None


def test_a_missing_page_a_missing_anchor_and_the_web_would_be_noticed(tmp_path):
    page, other = tmp_path / "a.html", tmp_path / "b.html"
    page.write_text("")
    other.write_text("")
    names = {page: {"top"}, other: {"here"}}
    assert leads_to(page, "b.html#here", names) == other
    assert leads_to(page, "#top", names) == page
    for wrong in ("c.html", "b.html#gone", "#gone", "https://example.org/x.js", "//example.org/x.js"):
        assert leads_to(page, wrong, names) is None
    assert FETCHED.findall('<link rel="stylesheet" href="https://fonts.example/x.css">') == [
        "https://fonts.example/x.css"
    ]
