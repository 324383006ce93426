"""Digests of the files that a report's numbers come from, by which a page sees that they are older than these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from utils.files import sha256


def digests(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Path relative to ``folder`` -> SHA-256 of each file that there is."""
    return {relative(path, folder): sha256(path) for path in paths if path.exists()}


def changed(folder: Path, inputs: Mapping[str, str]) -> list[str]:
    """Name the inputs that are gone or no longer what they were when the report in ``folder`` was written."""
    return [name for name, digest in inputs.items() if not (folder / name).exists() or sha256(folder / name) != digest]


def relative(path: Path, folder: Path) -> str:
    """A path as a report in ``folder`` names it: relative to that if it lies below, else as it is."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
