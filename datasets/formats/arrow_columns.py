"""Numbers in Arrow's columns: of Parquet files and Lance tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from datasets.formats.rows import Array, library


def numbers(column: Any, shape: Sequence[int]) -> Array:
    """A column of numbers, or of lists of them, as an array of this shape."""
    values = column.combine_chunks()
    while hasattr(values.type, "value_type"):
        values = values.flatten()
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


def as_column(rows: Array, lists: bool = False) -> Any:
    """Rows (T, ...) as a column of lists of a fixed length; of plain numbers where that is 1, unless ``lists``."""
    arrow = library("pyarrow", "pyarrow")
    flat, width = arrow.array(rows.reshape(-1)), rows[0].size
    return flat if width == 1 and not lists else arrow.FixedSizeListArray.from_arrays(flat, width)
