"""The PointMaze data sets in the layout that DINO-WM released: ``point_maze/``, and those of the larger mazes."""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.episode_store import EpisodeStore, TensorStore
from datasets.formats.table_trajectories import TableTrajectories
from datasets.writer import Recording, Writer


class PointMazeWriter(Writer):
    """Writes what ``PointMazeTrajectories`` reads."""

    folder = "point_maze"
    default_trajectories = 2000
    image_types = ("uint8",)

    def store(self, image_type: str) -> EpisodeStore:
        """One tensor per episode, colours last."""
        return TensorStore(getattr(torch, image_type), channels_last=True)

    def tables(self, recording: Recording) -> dict[str, Tensor]:
        """Rows of the three tables; the state after the last action is left out."""
        return {
            "actions": recording.actions.double(),
            "seq_lengths": recording.lengths,
            "states": recording.states[:, :-1],
        }


class PointMazeTrajectories(TableTrajectories):
    """Trajectories of the ball, all in one maze.

    ``states.pth`` (n, T, 4), ``actions.pth`` (n, T, 2), ``seq_lengths.pth`` (n,), and images (length, S, S, 3) in
    0..255. A state is the ball's x, y and velocity; the proprio values are the state. A raw action is a force in units
    of 100 N.

    Deviation: the original drew the split from the global generator, so that planning, under another seed than
    training, took its problems mostly from trajectories that had been trained on; here both use ``split_seed``.
    """

    name = "point_maze"
    writer = PointMazeWriter
    widths = {"states": 4, "actions": 2}  # noqa: RUF012
    channels_last = True


class PointMazeMediumWriter(PointMazeWriter):
    """Writes what ``PointMazeMediumTrajectories`` reads."""

    folder = "point_maze_medium"


class PointMazeMediumTrajectories(PointMazeTrajectories):
    """Trajectories in the medium maze, as released with arXiv 2603.12231: the same files."""

    name = "point_maze_medium"
    writer = PointMazeMediumWriter


class PointMazeLargeWriter(PointMazeWriter):
    """Writes what ``PointMazeLargeTrajectories`` reads."""

    folder = "point_maze_large"


class PointMazeLargeTrajectories(PointMazeTrajectories):
    """Trajectories in the large maze: the same files."""

    name = "point_maze_large"
    writer = PointMazeLargeWriter
