"""The PointMaze data set as DINO-WM released it: ``point_maze/``."""

from __future__ import annotations

from datasets.formats.table_trajectories import TableTrajectories


class PointMazeTrajectories(TableTrajectories):
    """Trajectories of the ball, all in one maze.

    ``states.pth`` (n, T, 4), ``actions.pth`` (n, T, 2), ``seq_lengths.pth`` (n,), and images (length, S, S, 3) in
    0..255. A state is the ball's x, y and velocity; the proprio values are the state. A raw action is a force in units
    of 100 N.

    Deviation: the original drew the split from the global generator, so that planning, under another seed than
    training, took its problems mostly from trajectories that had been trained on; here both use ``split_seed``.
    """

    name = "point_maze"
    folder = "point_maze"
    widths = {"states": 4, "actions": 2}  # noqa: RUF012
    channels_last = True
