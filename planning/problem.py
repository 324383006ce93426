"""Independent episodes to solve: starts, goals, and what else differs between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from planning.episode_hashes import LAYOUT, episode_hashes, episode_set_hash
from utils.files import atomic_path


@dataclass(frozen=True)
class Problem:
    """Independent episodes to solve.

    Attributes:
        seeds: B environment seeds.
        states: (B, S) starts, as a reset is given them.
        goal_states: (B, S) goals.
        layouts: Name -> (B, ...), what differs between episodes besides their state.
        actions: (B, K, env_action_dim) raw actions known to lead from start to goal; None where there are none.
    """

    seeds: list[int]
    states: Tensor
    goal_states: Tensor
    layouts: dict[str, Tensor]
    actions: Tensor | None = None

    def __len__(self) -> int:
        return len(self.seeds)

    def hashes(self) -> list[str]:
        """Name each episode by its start, goal and layout."""
        return episode_hashes(self.arrays())

    def set_hash(self) -> str:
        """Name all episodes together, in their order."""
        return episode_set_hash(self.arrays())

    def part(self, rows: Tensor) -> Problem:
        """The episodes ``rows`` (b,), which may be repeated."""
        return Problem(
            [self.seeds[row] for row in rows.tolist()],
            self.states[rows],
            self.goal_states[rows],
            {name: value[rows] for name, value in self.layouts.items()},
            None if self.actions is None else self.actions[rows],
        )

    def with_rows(self, rows: Tensor, other: Problem) -> Problem:
        """Replace what the episodes ``rows`` (b,) are about by the b episodes of another; they keep their seeds."""

        def put(values: Tensor, new: Tensor) -> Tensor:
            values = values.clone()
            values[rows] = new
            return values

        return replace(
            self,
            states=put(self.states, other.states),
            goal_states=put(self.goal_states, other.goal_states),
            layouts={name: put(value, other.layouts[name]) for name, value in self.layouts.items()},
            actions=None if self.actions is None or other.actions is None else put(self.actions, other.actions),
        )

    def save(self, path: Path) -> None:
        """Write a ``plan_targets.npz`` without pickles; see docs/results_format.md."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **self.arrays())  # type: ignore[arg-type]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of a ``plan_targets.npz``."""
        arrays = {"seeds": np.array(self.seeds), "states": self.states, "goal_states": self.goal_states}
        arrays |= {f"{LAYOUT}{name}": value for name, value in self.layouts.items()}
        if self.actions is not None:
            arrays["actions"] = self.actions
        return {name: np.asarray(v.cpu() if isinstance(v, Tensor) else v) for name, v in arrays.items()}
