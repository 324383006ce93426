"""Lance tables, as stable-worldmodel lays them out."""

from __future__ import annotations

from typing import Any

import numpy as np

from datasets.converting.target import Target, bytes_of_columns
from datasets.formats.arrow_columns import as_column
from datasets.formats.image_bytes import encoded
from datasets.formats.rows import library


class LanceTarget(Target):
    """``pixels`` as PNG images, ``state``, ``action``, ``proprio``, and the index of episode and step in each row."""

    image_types = ("png",)
    suffix = ".lance"

    def bytes_needed(self) -> int:
        """Images are hardly larger than uncompressed."""
        return sum(self.outline.lengths) * self.outline.frame.numel() + bytes_of_columns(self.outline)

    def begin(self) -> None:
        """Nothing is needed."""

    def write(self, numbers: range) -> None:
        """Append the rows, all or none of them."""
        arrow, tables = library("pyarrow", "pyarrow"), []
        for number in numbers:
            length = self.outline.lengths[number]
            index = {"episode_idx": np.full(length, number, np.int32), "step_idx": np.arange(length, dtype=np.int32)}
            values: dict[str, Any] = {name: arrow.array(rows) for name, rows in index.items()}
            images = self.outline.frames(number).round().byte().movedim(1, -1).numpy()
            values["pixels"] = arrow.array([encoded(image) for image in images], arrow.binary())
            rows = self.outline.columns(number)
            tables.append(arrow.table(values | {name: as_column(table, lists=True) for name, table in rows.items()}))
        mode = "append" if self.place.exists() else "create"
        library("lance", "pylance").write_dataset(arrow.concat_tables(tables), str(self.place), mode=mode)

    def finish(self) -> None:
        """Join the pieces that were appended."""
        table = library("lance", "pylance").dataset(str(self.place))
        table.optimize.compact_files()
        table.cleanup_old_versions(older_than=None, delete_unverified=True)

    def done(self) -> int:
        """Counted in the table itself, whose appends are whole or not there."""
        if not self.place.exists():
            return 0
        rows = library("lance", "pylance").dataset(str(self.place)).count_rows()
        return int(np.searchsorted(np.cumsum(self.outline.lengths), rows, side="right"))
