"""Reading the files of a data set without trusting them, and writing them whole."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from utils.files import atomic_path
from utils.nearby import hint

ROOT_VARIABLE = "DATASET_DIR"
FOLDERS = ("pusht_noise", "point_maze", "wall_single")


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


def load_tensor(path: Path) -> Tensor:
    """Open a ``.pth`` file that holds one tensor, mapped into memory: only what is indexed is read from disk.

    Args:
        path: file written by ``torch.save``; the older, unzipped form is read whole instead of mapped.

    Returns:
        The tensor on the CPU, wherever it was saved. Copy before writing into it.

    Raises:
        DatasetError: If the file is missing, damaged, holds code, or holds something else than a tensor.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except FileNotFoundError as error:
        raise dataset_error(path, "a tensor file", "no file", "Finish the download, or collect the data.") from error
    except Exception as error:  # damaged files fail in many ways (zip, pickle, storage sizes); all mean the same here
        found = f"a file that does not load safely ({type(error).__name__}: {_first_line(error)})"
        raise dataset_error(path, "one tensor in a .pth file", found, "Delete it and fetch it again.") from error
    if not isinstance(loaded, Tensor):
        raise dataset_error(path, "one tensor", f"a {type(loaded).__name__}", "Fetch the original file again.")
    return loaded


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0][:200]


def write_whole(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all, see ``atomic_path``."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        fill(file)


_PLAIN_BUILTINS = ("list", "tuple", "dict", "set", "frozenset", "int", "float", "complex", "bool", "str", "bytes")
_ALLOWED_GLOBALS = (
    {("builtins", name) for name in (*_PLAIN_BUILTINS, "bytearray")}
    | {("__builtin__", name) for name in (*_PLAIN_BUILTINS, "bytearray")}
    | {("collections", "OrderedDict"), ("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype")}
    | {(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
    | {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
)


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that can build containers, numbers, strings and arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global of the allow-list; refuse every other one before it is even imported."""
        if (module, name) not in _ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"the file names {module}.{name}, which is neither a number nor a container")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load_plain_pickle(path: Path) -> Any:
    """Read a ``.pkl`` file of plain containers, numbers, strings and NumPy arrays, without running its code.

    Raises:
        DatasetError: If the file is missing, damaged, or names anything outside the allow-list.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except FileNotFoundError as error:
        raise dataset_error(path, "a pickle of plain data", "no file", "Finish the download.") from error
    except Exception as error:  # the opcodes of a damaged or hostile pickle can raise anything
        found = f"{type(error).__name__}: {_first_line(error)}"
        remedy = "Do not open it in another way before you know who wrote it; fetch the original file again."
        raise dataset_error(path, "a pickle of lists, numbers, strings and arrays", found, remedy) from error
