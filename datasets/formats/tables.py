"""The tables of a data set: what every trajectory did, padded to (n, T, width), checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.files import ROOT_VARIABLE, SETTINGS_FILE, dataset_error, load_tensor
from utils.nearby import hint

TABLE = "states.pth"
LAYOUT_TABLE = "layout_"
"""What the names of tables begin with that hold a key of the episodes' layouts."""
_ORIGINAL = "Fetch the original file again."


def check_collected(root: Path, env: str, part: str = "") -> None:
    """Refuse a missing folder, one that is a level off, and an unfinished collection, each with what mends it.

    Args:
        root: The data set's folder, ``data_path``.
        env: Name of the environment, as in ``env=<name>``.
        part: Folder of ``root`` that is one collection, whose ``states.pth`` is written last; empty: ``root`` itself.

    Raises:
        DatasetError: If there is no such folder, or its collection was interrupted.
    """
    command = f"`python -m datasets.collect env={env}`"
    folder = root / part
    begun = any((folder / name).exists() for name in (TABLE, SETTINGS_FILE))
    near = "" if begun else hint(root, lambda place: TABLE if (place / part / TABLE).is_file() else None)
    if not folder.is_dir() or "did you mean" in near:
        remedy = f"Correct {ROOT_VARIABLE} or data_path, download the data (docs/data.md), or collect them: {command}."
        raise dataset_error(folder, f"the folder of the {env} data", near, remedy)
    if (folder / SETTINGS_FILE).exists() and not (folder / TABLE).exists():
        remedy = f"Run the same {command} again: it goes on where it stopped."
        raise dataset_error(folder, "a finished collection", "one that was interrupted", remedy)


def load_tables(folder: Path, widths: Mapping[str, int | None]) -> dict[str, Tensor]:
    """Read ``<name>.pth`` (n, T, width) for each name, n and T as in the first of them, float32 or float64.

    A width of None is any.

    Raises:
        DatasetError: If a file is missing or damaged, or its shape or type does not fit.
    """
    tables: dict[str, Tensor] = {}
    leader = next(iter(widths))
    for name, width in widths.items():
        path = folder / f"{name}.pth"
        table = load_tensor(path)
        shape = tuple(tables[leader].shape[:2]) if tables else ("n", "T")
        fits = table.ndim == 3 and width in (None, table.shape[2]) and table.numel() > 0
        if not fits or (tables and table.shape[:2] != tables[leader].shape[:2]):
            expected = f"shape ({shape[0]}, {shape[1]}, {width or 'any'})" + (
                f" as {leader}.pth says" if tables else ""
            )
            raise dataset_error(path, expected, tuple(table.shape), "Fetch all tables of one data set again.")
        if table.dtype not in (torch.float32, torch.float64):
            raise dataset_error(path, "float32 or float64", table.dtype, _ORIGINAL)
        tables[name] = table.clone()  # off the mapped file, which may be replaced while a training runs
    return tables


def load_layouts(folder: Path, count: int) -> dict[str, Tensor]:
    """Read the tables ``layout_<key>.pth`` (n, ...) that there are: key -> table.

    Raises:
        DatasetError: If one is damaged, or not of ``count`` trajectories.
    """
    found = {}
    for path in sorted(folder.glob(f"{LAYOUT_TABLE}*.pth")):
        table = load_tensor(path)
        if table.shape[:1] != (count,):
            raise dataset_error(path, f"{count} rows", tuple(table.shape), "Fetch all tables of one data set again.")
        found[path.stem.removeprefix(LAYOUT_TABLE)] = table.clone()
    return found


def checked_lengths(path: Path, values: object, table: Tensor) -> Tensor:
    """Turn what a file of lengths holds into (n,) int64, one for each trajectory of ``table`` (n, T, width).

    Raises:
        DatasetError: If these are not n whole numbers in 1..T.
    """
    count, num_steps = table.shape[:2]
    try:
        array = np.asarray(values)
    except ValueError:  # lists of unequal lengths
        array = np.array(None)
    if array.shape != (count,) or array.dtype.kind not in "iuf":
        expected = f"{count} lengths, one for each trajectory of the tables"
        raise dataset_error(path, expected, f"{array.dtype} of shape {array.shape}", _ORIGINAL)
    wrong = ~((array >= 1) & (array <= num_steps) & (array == np.floor(array)))
    if wrong.any():
        found = f"{array[wrong][0]} for trajectory {wrong.argmax()}"
        raise dataset_error(path, f"whole lengths in 1..{num_steps} (the rows of the tables)", found, _ORIGINAL)
    return torch.from_numpy(array.astype(np.int64))


def is_recorded(lengths: Tensor, num_steps: int) -> Tensor:
    """(n, num_steps) bool: which rows of a padded table belong to the trajectories; ``lengths`` is (n,)."""
    return torch.arange(num_steps) < lengths[:, None]


def check_finite(folder: Path, tables: Mapping[str, Tensor], lengths: Tensor) -> None:
    """Refuse NaN and infinity in the rows before a trajectory's length; the padding may hold anything.

    Raises:
        DatasetError: Naming the table, trajectory and step of the first.
    """
    for name, table in tables.items():
        bad = is_recorded(lengths, table.shape[1])[..., None] & ~table.isfinite()
        if bad.any():
            where = bad.nonzero()[0].tolist()
            found = f"{table[tuple(where)].item()} at trajectory {where[0]}, step {where[1]}"
            remedy = "Remove that trajectory or fetch the file again."
            raise dataset_error(folder / f"{name}.pth", "finite numbers", found, remedy)


def chosen_count(n_rollout: int | None, available: int, folder: Path) -> int:
    """The number of trajectories to use: ``n_rollout``, or all where it is None.

    Raises:
        DatasetError: If there are not so many, or fewer than one is asked for.
    """
    count = available if n_rollout is None else n_rollout
    if not 1 <= count <= available:
        expected = f"1..{available} (the trajectories in {folder})"
        raise dataset_error("n_rollout", expected, n_rollout, "Change it, or leave it null.")
    return count
