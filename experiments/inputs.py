"""Digests of what numbers come from: files that a report is older than, and models that were trained further."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from models.checkpoints.native import weights_file
from utils.files import sha256, write_json
from utils.reading.json_file import RESULTS_BYTES, read_json

MODELS = "models.json"


def digests(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Path relative to ``folder`` -> SHA-256 of each file that there is."""
    return {relative(path, folder): sha256(path) for path in paths if path.exists()}


def changed(folder: Path, inputs: Mapping[str, str]) -> list[str]:
    """Name the inputs that are gone or no longer what they were when the report in ``folder`` was written."""
    return [name for name, digest in inputs.items() if not (folder / name).exists() or sha256(folder / name) != digest]


def relative(path: Path, folder: Path) -> str:
    """A path as a report in ``folder`` names it: relative to that if it lies below, else as it is."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def refuse_changed_models(folder: Path, paths: Iterable[str], has_results: bool) -> None:
    """Keep in ``folder`` what the given models are, and refuse to go on with others in their places.

    Args:
        folder: Of the study.
        paths: Model directories and files.
        has_results: Whether stages of the study are kept; without one nothing is lost.

    Raises:
        ValueError: If a model is not the one that kept results are of.
    """
    now = {path: _weights_digest(Path(path)) for path in paths}
    kept = folder / MODELS
    then = read_json(kept, dict, "delete it", RESULTS_BYTES) if kept.exists() else {}
    changed = [path for path in now if then.get(path, now[path]) != now[path]]
    if changed and has_results:
        raise ValueError(
            f"{', '.join(changed)}: these weights are not those that the results in {folder} are of; choose another "
            "folder=..., or delete that one"
        )
    if now:
        write_json(kept, then | now)


def _weights_digest(path: Path) -> str:
    """SHA-256 of a model's weights file, or of all files of a folder of another layout."""
    own = weights_file(path) if path.is_dir() else path
    files = [own] if own else sorted(each for each in path.iterdir() if each.is_file())
    return "-".join(sha256(file) for file in files)
