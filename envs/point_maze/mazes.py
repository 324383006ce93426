"""The plans of the three mazes, and how the original's camera sees each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ORIGIN = 1.2  # where joint position 0 lies in the world, m, along x and y


@dataclass(frozen=True)
class Maze:
    """A plan of unit cells; that of cell (i, j) has its middle at world i + 1, j + 1.

    Attributes:
        name: Of the environment, as in ``env=<name>``.
        rows: Along x, columns along y; "#" is a wall, the rest is free ("G" is the original's goal).
        camera_center: World x, y that the camera looks at, m: the medians over all geoms, the ball among them where
            the environment's seed 0 starts it.
        extent: Size that MuJoCo measures in the original model; sets camera distance and clipping planes.
    """

    name: str
    rows: tuple[str, ...]
    camera_center: tuple[float, float]
    extent: float

    def cells(self, kind: str) -> list[tuple[int, int]]:
        """The cells (i, j) of a kind, such as "#", in order."""
        return [(i, j) for i, row in enumerate(self.rows) for j, cell in enumerate(row) if cell == kind]

    def wall_distance(self, position: NDArray[np.float64]) -> float:
        """From joint coordinates x, y to the nearest wall, m; 0 inside it, infinite outside the maze."""
        i, j = (math.floor(value + ORIGIN - 0.5) for value in position.tolist())
        if not (0 <= i < len(self.rows) and 0 <= j < len(self.rows[0])):
            return math.inf
        middles = np.array(self.cells("#")) + 1 - ORIGIN
        return float(np.linalg.norm(np.maximum(np.abs(middles - position) - 0.5, 0), axis=1).min())


U_MAZE = Maze("point_maze", ("#####", "#GOO#", "###O#", "#OOO#", "#####"), (3.0, 3.0), 9.734846922834954)
MEDIUM_MAZE = Maze(
    "point_maze_medium",
    ("########", "#OO##OO#", "#OO#OOO#", "##OOO###", "#OO#OOO#", "#O#OO#O#", "#OOO#OG#", "########"),
    (4.0, 4.0),
    12.734846922834954,
)
LARGE_MAZE = Maze(
    "point_maze_large",
    (
        "############",
        "#OOOO#OOOOO#",
        "#O##O#O#O#O#",
        "#OOOOOO#OOO#",
        "#O####O###O#",
        "#OO#O#OOOOO#",
        "##O#O#O#O###",
        "#OO#OOO#OGO#",
        "############",
    ),
    (5.0, 6.0),
    16.734846922834954,
)
