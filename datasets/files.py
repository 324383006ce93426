"""Reading the files of a data set without trusting them, and writing them whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from utils.files import atomic_path
from utils.nearby import hint
from utils.reading.checksums import Form, append_checksums
from utils.reading.mapped_tensor import MappedTensor
from utils.reading.opening import FileError
from utils.reading.torch_file import read_plain_pickle

ROOT_VARIABLE = "DATASET_DIR"
_AGAIN = "delete it and fetch it again"
FOLDERS = ("pusht_noise", "point_maze", "point_maze_medium", "wall_single")
SETTINGS_FILE = "collect.json"
"""The file, in the folder of a collected data set, that says what it was made with."""


class DatasetError(ValueError):
    """A data set on disk, or the way it was asked for, is not usable; the message says what to do."""


def dataset_error(where: object, expected: object, found: object, remedy: str) -> DatasetError:
    """Compose the one form of message all data errors have: where, what was expected, what was found, what to do."""
    return DatasetError(f"{where}: expected {expected}, found {found}. {remedy}")


def dataset_root() -> Path:
    """Locate the folder that holds all data sets, from the environment variable ``DATASET_DIR``.

    Raises:
        DatasetError: If the variable is unset or does not name a directory.
    """
    value = os.environ.get(ROOT_VARIABLE, "")
    remedy = f"Run `export {ROOT_VARIABLE}=/path/to/data` (docs/data.md says what lies there), or give the data_path."
    if not value:
        raise dataset_error(f"environment variable {ROOT_VARIABLE}", "the folder of the data sets", "nothing", remedy)
    root = Path(value).expanduser()
    if not root.is_dir():
        state = hint(root, lambda place: next((name for name in FOLDERS if (place / name).is_dir()), None))
        raise dataset_error(f"environment variable {ROOT_VARIABLE}={value}", "an existing folder", state, remedy)
    return root


def open_tensor(path: Path, sound: dict[bytes, set[int]] | None = None) -> MappedTensor:
    """Open a ``.pth`` file that holds one tensor, mapped into memory: only what is indexed is read from disk.

    Args:
        path: File written by ``torch.save``, on any device; the older, unzipped form is read whole instead of mapped.
        sound: See ``MappedTensor``.

    Raises:
        DatasetError: If the file is missing, damaged, holds code, or holds something else than a tensor.
    """
    try:
        return MappedTensor(path, _AGAIN, sound)
    except FileNotFoundError as error:
        raise dataset_error(path, "a tensor file", "no file", "Finish the download, or collect the data.") from error
    except (FileError, OSError) as error:
        raise unreadable(error, path) from error


def load_tensor(path: Path) -> Tensor:
    """The whole tensor of such a file, its checksums compared; raises as ``open_tensor`` does.

    Copy before writing into it.
    """
    try:
        return open_tensor(path).whole()
    except FileError as error:
        raise unreadable(error, path) from error


def load_plain_pickle(path: Path) -> Any:
    """Read a ``.pkl`` file of plain containers, numbers, strings and NumPy arrays, without running its code.

    Raises:
        DatasetError: If the file is missing, damaged, or names anything outside the allow-list.
    """
    try:
        return read_plain_pickle(path, _AGAIN)
    except FileNotFoundError as error:
        raise dataset_error(path, "a pickle of plain data", "no file", "Finish the download.") from error
    except (FileError, OSError) as error:
        raise unreadable(error, path) from error


def unreadable(error: Exception, path: Path) -> DatasetError:
    """An error of reading ``path`` as one of its data set."""
    return DatasetError(str(error) if str(path) in str(error) else f"{path}: {error}")


def write_whole(path: Path, fill: Callable[[BinaryIO], object], form: Form | None = None) -> None:
    """Write a file whole or not at all, see ``atomic_path``; with checksums, if it has a form that takes them."""
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            fill(file)
        if form is not None:
            append_checksums(temporary, form)
