"""One folder, one set of settings, one process at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets.files import DatasetError, dataset_error, write_whole
from utils.reading.json_file import read_json

logger = logging.getLogger(__name__)

SETTINGS_FILE = "collect.json"


@contextmanager
def claimed(folder: Path, settings: dict[str, Any], products: str) -> Iterator[None]:
    """Hold a folder for making something with these settings, which are recorded in it; made if it does not exist.

    Args:
        folder: to be claimed.
        settings: plain values. Those of an earlier claim must be equal, unless nothing was made under them.
        products: subfolder whose files show that something was made.

    Raises:
        DatasetError: If the folder holds files of another origin, was claimed with other settings, or is held by
            another process.
    """
    if folder.exists() and not folder.is_dir():
        raise dataset_error(folder, "a folder", "a file", "Choose another data_path.")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        _compare_or_record(folder, json.loads(json.dumps(settings)), products)
        yield
    finally:
        os.close(handle)  # lifts the lock; the system does so however this process ends


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DatasetError(f"{folder}: another process is collecting into it; wait for it to end") from None
    except OSError as error:
        logger.warning("%s: its file system has no locks (%s); start no second collector there", folder, error)


def _compare_or_record(folder: Path, wanted: dict[str, Any], products: str) -> None:
    path = folder / SETTINGS_FILE
    if not path.exists() and any(not file.name.endswith(".tmp") for file in folder.iterdir()):
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
