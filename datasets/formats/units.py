"""What the states and actions of foreign data sets are measured in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from datasets.formats.pusht import NORMALIZATION
from datasets.formats.rows import Array
from datasets.units.normalizer import Normalizer
from envs.pusht import ACTION_SCALE, PROPRIO
from envs.pusht.physics import DAMPING, STIFFNESS, SUBSTEP_SECONDS, SUBSTEPS
from envs.pusht.shapes import SHAPE_KEY, SHAPES


class Units:
    """Values as they are stored.

    Attributes:
        proprio: Entries of the state that are the proprio values; None: whatever the data set says.
    """

    proprio: tuple[int, ...] | None = None

    def convert(self, states: Array, actions: Array) -> tuple[Array, Array]:
        """States (T, S) and actions (T', a) of an episode, T' <= T, in units of the environment."""
        return states, actions

    def layouts(self, count: int) -> dict[str, Tensor]:
        """Layouts of ``count`` episodes where the files have none."""
        return {}

    def normalizer(self, env_action_dim: int, state_dim: int, proprio_dim: int) -> Normalizer | None:
        """Fixed statistics, or None: those of the data."""
        return None


class PushTUnits(Units):
    """Values of our PushT, whatever wrote them; z-scored with the statistics of the released checkpoints."""

    proprio = PROPRIO

    def layouts(self, count: int) -> dict[str, Tensor]:
        """The T."""
        return {SHAPE_KEY: torch.full((count, 1), SHAPES.index("T"))}

    def normalizer(self, env_action_dim: int, state_dim: int, proprio_dim: int) -> Normalizer | None:
        """The released ones."""
        return Normalizer.from_dict(NORMALIZATION) if (env_action_dim, state_dim, proprio_dim) == (2, 7, 4) else None


class PushTReplayUnits(PushTUnits):
    """Diffusion Policy's PushT: states (agent x, y, block x, y, angle) without velocity, and target points for actions.

    An action becomes the way from the agent to its target, in units of 100 pixels, and the angle is reduced to
    [0, 2 pi), as in DINO-WM's data. The agent's velocity is played again: it stands still at first, and neither the
    block nor a wall moves it, so that its recorded places and its targets determine it.
    """

    def convert(self, states: Array, actions: Array) -> tuple[Array, Array]:
        """States (T, 5) to (T, 7), and actions (T', 2) relative to the agent."""
        place, target = states[:, :2].astype(np.float64), actions.astype(np.float64)
        velocity = np.zeros_like(place)
        for step in range(len(states) - 1):
            where, speed = place[step].copy(), velocity[step].copy()
            for _ in range(SUBSTEPS):
                speed += (STIFFNESS * (target[step] - where) - DAMPING * speed) * SUBSTEP_SECONDS
                where += speed * SUBSTEP_SECONDS
            velocity[step + 1] = speed
        reduced = states.copy()
        reduced[:, 4] %= 2 * np.pi
        moves = (target - place[: len(target)]) / ACTION_SCALE
        return np.concatenate((reduced, velocity), 1).astype(states.dtype), moves.astype(actions.dtype)


def units_of(choice: str, env: str, state_dim: int) -> Units:
    """Choose by name; ``auto`` by the environment and the length of a state.

    Args:
        choice: ``stored`` takes all values as they are; ``pusht_replay`` makes DINO-WM's of Diffusion Policy's PushT.
            ``auto`` is ``pusht_replay`` for PushT with states of 5 entries, DINO-WM's statistics and proprio entries
            for PushT with 7, and ``stored`` for all else.
        env: Name of the environment.
        state_dim: Entries of a stored state.

    Raises:
        ValueError: If the states are not those that are to be converted.
    """
    if choice == "stored":
        return Units()
    if choice == "pusht_replay":
        if state_dim != 5:
            raise ValueError(f"env.dataset.units=pusht_replay needs states of 5 entries, got {state_dim}; set auto")
        return PushTReplayUnits()
    by_length: dict[int, type[Units]] = {5: PushTReplayUnits, 7: PushTUnits} if env == "pusht" else {}
    return by_length.get(state_dim, Units)()
