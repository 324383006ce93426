"""The sizes of an environment, which ``envs`` gives and ``models`` builds for."""

from __future__ import annotations

from typing import NamedTuple


class EnvSizes(NamedTuple):
    """Lengths of one raw action, of the proprio and of the simulator's state."""

    env_action_dim: int
    proprio_dim: int
    state_dim: int
