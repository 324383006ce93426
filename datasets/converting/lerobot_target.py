"""LeRobot's data sets, version 3, with files of their own for each episode."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np

from datasets.converting.target import Array, Target, bytes_of_columns
from datasets.episode_store import VideoStore
from datasets.formats.arrow_columns import as_column
from datasets.formats.image_bytes import encoded
from datasets.formats.rows import library
from utils.files import write_file, write_json

_PER_CHUNK = 1000  # files of a folder
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_NAMES = {"state": "observation.environment_state", "proprio": "observation.state"}
_CAMERA = "observation.image"
_FILE_BYTES = 16384  # of a table with few rows
_IMAGES_MEASURED = 100
_INDEX = "__index_level_0__"
_PANDAS = {
    "index_columns": [_INDEX],
    "column_indexes": [],
    "columns": [
        {"name": None, "field_name": _INDEX, "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
    ],
}
"""What pandas writes of a table whose index is the task."""


class LeRobotTarget(Target):
    """Tables of Parquet; images as H.264 videos, or inside the tables."""

    image_types = ("mp4", "png")

    @property
    def _videos(self) -> VideoStore:
        return VideoStore(fps=self.outline.fps)

    def bytes_needed(self) -> int:
        """Images are never larger than uncompressed, and videos far smaller."""
        lengths, side = self.outline.lengths, self.outline.frame.shape[-1]
        images = self._videos.bytes_needed(sum(lengths), side) if self.outline.images == "mp4" else 0
        if self.outline.images == "png":
            images = sum(lengths) * 3 * side**2
        return images + bytes_of_columns(self.outline) + len(lengths) * _FILE_BYTES

    def begin(self) -> None:
        """Refuse images that cannot be stored."""
        if self.outline.images == "mp4":
            self._videos.check_size(self.outline.frame.shape[-1])

    def write(self, numbers: range) -> None:
        """Write the table and the video of each."""
        for number in numbers:
            images = self.outline.frames(number).round().byte()
            if self.outline.images == "mp4":
                self._videos.write(self.place / "videos" / _CAMERA / f"{_file(number)}.mp4", images)
            table = self._table(number, images.movedim(1, -1).numpy())
            parquet = library("pyarrow.parquet", "pyarrow")
            write_file(self.place / "data" / f"{_file(number)}.parquet", functools.partial(parquet.write_table, table))

    def finish(self) -> None:
        """Write what is known of all episodes, and then what makes the folder a data set."""
        arrow, lengths = library("pyarrow", "pyarrow"), np.array(self.outline.lengths)
        task, numbers, ends = self.outline.data.name, np.arange(len(lengths)), np.cumsum(lengths)
        places = {"chunk_index": numbers // _PER_CHUNK, "file_index": numbers % _PER_CHUNK}
        episodes = {"episode_index": numbers, "tasks": [[task]] * len(lengths), "length": lengths}
        episodes |= {f"data/{name}": values for name, values in places.items()}
        episodes |= {"dataset_from_index": ends - lengths, "dataset_to_index": ends}
        if self.outline.images == "mp4":
            times = {"from_timestamp": np.zeros(len(lengths)), "to_timestamp": lengths / self.outline.fps}
            episodes |= {f"videos/{_CAMERA}/{name}": values for name, values in (places | times).items()}
        episodes |= {f"meta/episodes/{name}": np.zeros(len(lengths), np.int64) for name in places}
        self._write_meta("episodes/chunk-000/file-000", arrow.table(episodes))
        tasks = arrow.table({"task_index": [0], _INDEX: [task]})
        self._write_meta("tasks", tasks.replace_schema_metadata({"pandas": json.dumps(_PANDAS)}))
        write_json(self.place / "meta" / "stats.json", self._statistics())
        write_json(self.place / "meta" / "info.json", self._info())

    def _table(self, number: int, images: Array) -> Any:
        arrow, columns = library("pyarrow", "pyarrow"), self._columns(number)
        values = {name: as_column(rows) for name, rows in columns.items()}
        if self.outline.images == "png":
            stored = [{"bytes": encoded(image), "path": None} for image in images]
            values[_CAMERA] = arrow.array(stored, arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))
        return arrow.table(values)

    def _columns(self, number: int) -> dict[str, Array]:
        rows = {_NAMES.get(name, name): values for name, values in self.outline.columns(number).items()}
        length, first = self.outline.lengths[number], sum(self.outline.lengths[:number])
        steps = np.arange(length)
        return rows | {
            "timestamp": (steps / self.outline.fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(length, number),
            "index": first + steps,
            "task_index": np.zeros(length, np.int64),
        }

    def _info(self) -> dict[str, Any]:
        columns, side = self._columns(0), self.outline.frame.shape[-1]
        features = {
            name: {"dtype": str(rows.dtype), "shape": [*rows.shape[1:]] or [1], "names": None}
            for name, rows in columns.items()
        }
        is_video = self.outline.images == "mp4"
        camera: dict[str, Any] = {"shape": [side, side, 3], "names": ["height", "width", "channels"]}
        features[_CAMERA] = {"dtype": "video" if is_video else "image", **camera}
        lengths = self.outline.lengths
        return {
            "codebase_version": "v3.0",
            "robot_type": self.outline.data.name,
            "total_episodes": len(lengths),
            "total_frames": sum(lengths),
            "total_tasks": 1,
            "chunks_size": _PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.outline.fps,
            "splits": {"train": f"0:{len(lengths)}"},
            "data_path": f"data/{_FILE}.parquet",
            "video_path": f"videos/{{video_key}}/{_FILE}.mp4" if is_video else None,
            "features": features,
        }

    def _statistics(self) -> dict[str, Any]:
        """Statistics of all numbers, and of images those of the first frames of some episodes."""
        parts: dict[str, list[Array]] = {}
        for number in range(len(self.outline.lengths)):
            for name, rows in self._columns(number).items():
                parts.setdefault(name, []).append(rows.reshape(len(rows), -1))
        found = {name: _measured(np.concatenate(rows)) for name, rows in parts.items()}
        some = np.linspace(0, len(self.outline.lengths) - 1, _IMAGES_MEASURED).astype(int)
        frames = [self.outline.data.frames(number, [0])[0] for number in np.unique(some).tolist()]
        pixels = np.stack([frame.numpy() for frame in frames]).astype(np.float64) / 255
        colours = _measured(pixels.transpose(0, 2, 3, 1).reshape(-1, 3))
        shaped = {name: [[[value]] for value in values] for name, values in colours.items() if name != "count"}
        return found | {_CAMERA: shaped | {"count": [len(frames)]}}

    def _write_meta(self, name: str, table: Any) -> None:
        parquet = library("pyarrow.parquet", "pyarrow")
        write_file(self.place / "meta" / f"{name}.parquet", functools.partial(parquet.write_table, table))


def _file(number: int) -> str:
    return _FILE.format(chunk_index=number // _PER_CHUNK, file_index=number % _PER_CHUNK)


def _measured(rows: Array) -> dict[str, list[Any]]:
    """Statistics of each column of (n, width)."""
    values = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    return {name: value.astype(np.float64).tolist() for name, value in values.items()} | {"count": [len(rows)]}
