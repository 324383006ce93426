"""One folder, one set of settings, one process at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets.files import SETTINGS_FILE, dataset_error, write_whole
from utils.files import is_temporary
from utils.folder_lock import LOCK, FolderInUseError, hold, release
from utils.links import check_contents
from utils.reading.json_file import read_json


@contextmanager
def locked(folder: Path, settings: dict[str, Any], products: str) -> Iterator[None]:
    """Hold a folder for making something with these settings, which are recorded in it; made if it does not exist.

    Args:
        folder: To be held.
        settings: Plain values. Those recorded in it must be equal, unless nothing was made with them.
        products: Subfolder whose files show that something was made.

    Raises:
        DatasetError: If the folder holds files of another origin, or was made with other settings.
        FolderInUseError: If it is held by another process.
        LinkError: If something in it is a link.
    """
    if folder.exists() and not folder.is_dir():
        raise dataset_error(folder, "a folder", "a file", "Choose another data_path.")
    check_contents(folder, (products, "parts"), strict=True)
    if not hold(folder, "data set", "choose another data_path"):
        raise FolderInUseError(f"data set {folder} is being collected by this process already")
    try:
        _compare_or_record(folder, json.loads(json.dumps(settings)), products)
        yield
    finally:
        release(folder)


def _compare_or_record(folder: Path, wanted: dict[str, Any], products: str) -> None:
    path = folder / SETTINGS_FILE
    ours = [LOCK, *(file.name for file in folder.iterdir() if is_temporary(file) or file.name.endswith(".tmp"))]
    if not path.exists() and any(file.name not in ours for file in folder.iterdir()):
        remedy = "It may be a downloaded data set; choose another data_path or move it away."
        raise dataset_error(folder, "a new or empty folder", "files of another origin", remedy)
    (folder / products).mkdir(exist_ok=True)
    if not path.exists() or not any((folder / products).glob("[!.]*")):
        write_whole(path, lambda file: file.write(json.dumps(wanted, indent=1).encode()))
    recorded = read_json(path, dict, "delete the folder, or choose another data_path")
    for key in sorted(set(recorded) | set(wanted)):
        if recorded.get(key) != wanted.get(key):
            remedy = f"Repeat with {key}={recorded.get(key)}, or choose another data_path, or delete the folder."
            raise dataset_error(path, f"{key}={wanted.get(key)} as requested", f"{recorded.get(key)}", remedy)
