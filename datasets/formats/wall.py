"""The Wall data set as DINO-WM released it: ``wall_single/``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from datasets.formats.table_trajectories import TableTrajectories


class WallTrajectories(TableTrajectories):
    """Trajectories of one length T.

    ``states.pth``, ``actions.pth`` (n, T, 2), ``door_locations.pth``, ``wall_locations.pth`` (n, T, 1), and images
    (T + 1, 3, S, S), 0..255. A state is the dot's x, y in pixels of a 65 x 65 grid; the proprio values are the state.
    The layout of an episode is the door's y and the wall's x, pixels, (1,) each.
    """

    name = "wall"
    folder = "wall_single"
    widths = {"states": 2, "actions": 2, "door_locations": 1, "wall_locations": 1}  # noqa: RUF012
    has_lengths = False

    def _layout_tables(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"fix_{name}_location": tables[f"{name}_locations"][:, 0].float() for name in ("door", "wall")}
