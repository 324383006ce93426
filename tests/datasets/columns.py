"""Four short episodes of random numbers and images, for the formats that keep episodes in columns."""

from typing import Any, NamedTuple

import numpy as np

LENGTHS = (9, 7, 12, 8)


class Columns(NamedTuple):
    """Rows of all episodes, end to end."""

    lengths: np.ndarray[Any, Any]
    values: dict[str, np.ndarray[Any, Any]]

    def episodes(self) -> list[dict[str, np.ndarray[Any, Any]]]:
        """The same, by episode."""
        cuts = np.cumsum(self.lengths)[:-1]
        parts = {name: np.split(rows, cuts) for name, rows in self.values.items()}
        return [{name: rows[number] for name, rows in parts.items()} for number in range(len(self.lengths))]


def columns(image: str = "img", size: int = 8, seed: int = 0) -> Columns:
    """Image, ``state`` (3) float64, ``action`` (2) float32 and ``proprio`` (2) float32."""
    rng, rows = np.random.default_rng(seed), sum(LENGTHS)
    values = {
        image: rng.integers(0, 256, (rows, size, size, 3), dtype=np.uint8),
        "state": rng.normal(size=(rows, 3)),
        "action": rng.normal(size=(rows, 2)).astype(np.float32),
        "proprio": rng.normal(size=(rows, 2)).astype(np.float32),
    }
    return Columns(np.array(LENGTHS), values)
