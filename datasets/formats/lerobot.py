"""LeRobot's data sets, version 3: Parquet tables, and videos or images."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.files import dataset_error, dataset_root, unreadable
from datasets.formats.arrow_columns import numbers
from datasets.formats.columns import ColumnTrajectories
from datasets.formats.image_bytes import decoded
from datasets.formats.rows import AGAIN, Array, Rows, check_room, lengths_from_ends, library, reading
from datasets.formats.timed_video import read_at
from utils.nearby import hint
from utils.reading.json_file import read_json
from utils.reading.opening import FileError

_INFO = "meta/info.json"
_NEAREST = 0.4  # of a frame's time: how far the frame that is meant may be from it
_VAL_SPLITS = ("val", "valid", "validation", "test")
_KEPT = 2  # groups of rows with images


class LeRobotTrajectories(ColumnTrajectories):
    """Parquet tables with the rows of all episodes, and each camera's frames in videos, or as images in the tables.

    Row t holds frame t and state t, both before action t. A split is taken from ``info.json`` where it names two parts.
    """

    usual_state = ("observation.environment_state", "observation.state")
    usual_proprio = ("observation.state",)

    @classmethod
    def usual_place(cls, env: str) -> Path:
        """``$DATASET_DIR/<env>_lerobot``."""
        return dataset_root() / f"{env}_lerobot"

    def open_rows(self, path: Path) -> Rows:
        """See the base class."""
        return LeRobotRows(path)


class LeRobotRows(Rows):
    """The features of a data set.

    Args:
        root: Its folder, with ``meta``, ``data`` and ``videos``.

    Raises:
        DatasetError: If it is none of version 3, or damaged.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / _INFO).is_file():
            found = hint(root, lambda place: _INFO if (place / _INFO).is_file() else None)
            remedy = "Correct env.dataset.data_path, or fetch the data (docs/data.md)."
            raise dataset_error(root, f"a LeRobot data set with {_INFO}", found, remedy)
        try:
            self._info = read_json(root / _INFO, dict, AGAIN)
        except FileError as error:
            raise unreadable(error, root / _INFO) from error
        version = str(self._info.get("codebase_version"))
        if not version.startswith("v3"):
            remedy = "Convert it with lerobot's convert_dataset_v21_to_v30."
            raise dataset_error(root / _INFO, "codebase_version v3", version, remedy)
        with reading(root / _INFO):
            self._fps, features = float(self._info["fps"]), self._info["features"]
            kinds = {name: (str(each["dtype"]), tuple(each["shape"])) for name, each in features.items()}
        self._shapes = {name: shape for name, (_, shape) in kinds.items()}
        self._videos = {name for name, (kind, _) in kinds.items() if kind == "video"}
        self.image_names = [name for name, (kind, _) in kinds.items() if kind in ("video", "image")]
        self.names = [name for name, (kind, _) in kinds.items() if kind.startswith(("float", "int", "uint", "bool"))]
        self._files = self._found("data")
        self._episodes = self._read_episodes()
        self.lengths = lengths_from_ends(root / "meta/episodes", np.cumsum(self._episodes["length"]))
        self._times = self._checked_times()
        self._cache: dict[tuple[int, int, int], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def table(self, name: str) -> Array:
        """See the base class."""
        parquet = library("pyarrow.parquet", "pyarrow")
        parts = []
        for file in self._files:
            with reading(f"{file}, {name}"):
                shape = (parquet.read_metadata(file).num_rows, *self._shapes[name])
                check_room(f"{file}, {name}", shape, np.float64, file.stat().st_size)
                parts.append(numbers(parquet.read_table(file, columns=[name], partitioning=None).column(0), shape))
        return np.concatenate(parts)

    def image_size(self, name: str) -> tuple[int, int]:
        """See the base class."""
        height, width, last = self._shapes[name] if len(self._shapes[name]) == 3 else (0, 0, 0)
        if 3 not in (height, last):
            remedy = "Name another column."
            raise dataset_error(self.root / _INFO, f"shape (H, W, 3) of {name}", self._shapes[name], remedy)
        if name in self._videos:
            self._check_spans(name)
        return (height, width) if last == 3 else (width, last)

    def frames(self, name: str, episode: int, steps: Sequence[int]) -> Tensor:
        """See the base class."""
        first = int(self.lengths[:episode].sum())
        if name in self._videos:
            place, since = self._video(name, episode)
            with reading(place):
                return read_at(
                    place, [since + float(self._times[first + step]) for step in steps], _NEAREST / self._fps
                )
        return torch.stack([self._image(name, first + step) for step in steps])

    def times(self, episode: int) -> Array:
        """See the base class."""
        first = int(self.lengths[:episode].sum())
        return self._times[first : first + int(self.lengths[episode])]

    def split(self, count: int) -> tuple[Tensor, Tensor] | None:
        """See the base class."""
        splits = self._info.get("splits") or {}
        val = next((splits[name] for name in _VAL_SPLITS if name in splits), None)
        if "train" not in splits or val is None:
            return None
        with reading(f"{self.root / _INFO}, splits"):
            parts = [range(*map(int, part.split(":"))) for part in (splits["train"], val)]
        train, validation = (torch.tensor([n for n in part if n < count], dtype=torch.int64) for part in parts)
        return train, validation

    def _found(self, folder: str) -> list[Path]:
        files = sorted((self.root / folder).glob("*/*.parquet"))
        if not files:
            raise dataset_error(self.root / folder, "Parquet files", "none", "Finish the download.")
        return files

    def _read_episodes(self) -> dict[str, Array]:
        """Columns of the table of episodes, in their order."""
        parquet, columns = library("pyarrow.parquet", "pyarrow"), ["episode_index", "length"]
        for name in sorted(self._videos):
            columns += [f"videos/{name}/{part}" for part in ("chunk_index", "file_index", "from_timestamp")]
        parts = []
        for file in self._found("meta/episodes"):
            with reading(file):
                table = parquet.read_table(file, columns=columns, partitioning=None)
                parts.append([np.asarray(table.column(column)) for column in columns])
        joined = dict(zip(columns, map(np.concatenate, zip(*parts, strict=True)), strict=True))
        order = np.argsort(joined["episode_index"], kind="stable")
        return {column: values[order] for column, values in joined.items()}

    def _checked_times(self) -> Array:
        """Seconds of each row since its episode's beginning; the rows must be those of the episodes, in order."""
        indices = self.table("episode_index").reshape(-1)
        expected = np.repeat(self._episodes["episode_index"], self.lengths)
        if not np.array_equal(indices, expected):
            found = f"{len(indices)} rows of {len(np.unique(indices))}"
            wanted = f"{len(expected)} rows of {len(self.lengths)} episodes in their order, as meta/episodes says"
            raise dataset_error(self.root / "data", wanted, found, "Finish the download.")
        return self.table("timestamp").reshape(-1)

    def _check_spans(self, name: str) -> None:
        """Refuse times that lead to another episode's frames, which may follow in the same file."""
        spare, ends = _NEAREST / self._fps, np.cumsum(self.lengths)
        spans = (self.lengths - 1) / self._fps
        lowest, highest = (part.reduceat(self._times, ends - self.lengths) for part in (np.minimum, np.maximum))
        outside = ~((lowest >= -spare) & (highest <= spans + spare))
        if outside.any():
            episode = int(outside.argmax())
            expected = f"timestamps of episode {episode} in 0..{spans[episode]:g} s, as its length and fps say"
            raise dataset_error(self.root / "data", expected, f"{lowest[episode]:g}..{highest[episode]:g} s", AGAIN)
        chunk, file, since = (
            self._episodes[f"videos/{name}/{part}"] for part in ("chunk_index", "file_index", "from_timestamp")
        )
        order = np.lexsort((since, file, chunk))
        for first, then in itertools.pairwise(order):
            until = float(since[first] + spans[first])
            if (chunk[first], file[first]) == (chunk[then], file[then]) and not since[then] > until + spare:
                expected = f"episode {then} in {name} after the last frame of episode {first}, at {until:g} s"
                raise dataset_error(self.root / "meta/episodes", expected, f"{since[then]:g} s", AGAIN)

    def _video(self, name: str, episode: int) -> tuple[Path, float]:
        """File of an episode's frames, and when they begin in it."""
        entry = {part: self._episodes[f"videos/{name}/{part}"][episode] for part in ("chunk_index", "file_index")}
        with reading(f"{self.root / _INFO}, video_path"):
            place = Path(self._info["video_path"].format(video_key=name, **{k: int(v) for k, v in entry.items()}))
        if place.is_absolute() or ".." in place.parts:
            raise dataset_error(self.root / _INFO, "a video_path inside the data set", place, AGAIN)
        return self.root / place, float(self._episodes[f"videos/{name}/from_timestamp"][episode])

    def _image(self, name: str, row: int) -> Tensor:
        """An image that is stored in the tables; the groups of rows read last are kept."""
        parquet = library("pyarrow.parquet", "pyarrow")
        for number, file in enumerate(self._files):
            with reading(f"{file}, {name}"):
                content = parquet.ParquetFile(file)
                if row >= content.metadata.num_rows:
                    row -= content.metadata.num_rows
                    continue
                group = 0
                while row >= (rows := content.metadata.row_group(group).num_rows):
                    row, group = row - rows, group + 1
                key = os.getpid(), number, group
                if key not in self._cache:
                    self._cache = dict([*self._cache.items()][1 - _KEPT :])
                    self._cache[key] = content.read_row_group(group, columns=[name]).column(0)
                return decoded(self._cache[key][row].as_py()["bytes"])
        raise dataset_error(self.root / "data", f"row {row} more", "none", "Finish the download.")
