"""The scripted pushes behind the PushT data that are made here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from envs.base import VectorEnv
from envs.expert import Expert
from envs.pusht import ACTION_SCALE
from envs.pusht.expert_episode import PushEpisode, PushOptions
from envs.pusht.shapes import SHAPE_KEY


@dataclass(frozen=True)
class PushTScriptedPusher(PushOptions, Expert):
    """Purposeful pushes, disturbed by noise of another level in each episode; those of ``val`` are undisturbed.

    A script pushes the block to a pose, then to the next one, until the episode ends: to the green landmark of the
    images or to a random pose. It watches the disturbed state, so that it pushes on from where the noise has led it.

    Its options are those of ``PushOptions``.

    Deviation: the released data replay 206 demonstrations by people, which are not part of this project, with noise on
    the commands. The statistics of these data are close to theirs.
    """

    def of_subset(self, subset: str) -> PushTScriptedPusher:
        """``train`` as configured, ``val`` without noise, as in the released data."""
        return self if subset == "train" else replace(self, noise_levels=(0.0,))

    def begin(self, env: VectorEnv, rngs: Sequence[np.random.Generator], num_steps: int) -> Pushes:
        """Draw one episode per generator."""
        return Pushes([PushEpisode(self, rng, num_steps) for rng in rngs])


class Pushes:
    """Episodes that are played by watching them; see ``envs.expert.Episodes``."""

    def __init__(self, episodes: Sequence[PushEpisode]) -> None:
        """Play these side by side; none heeds the others."""
        self._episodes = episodes
        # rounded to float32, as the file holds it: replaying the file gives the same episode
        self.states = torch.tensor([episode.start for episode in episodes], dtype=torch.float32).double()
        self.layouts = {SHAPE_KEY: torch.tensor([[episode.shape] for episode in episodes])}
        self.lengths = torch.tensor([episode.length for episode in episodes])

    def act(self, step: int, states: Tensor) -> Tensor:
        """Actions (B, 2) after the script's commands and the noise; zero where an episode is over."""
        rows = zip(self._episodes, states.tolist(), strict=True)
        moves = torch.tensor([episode.move(step, state) for episode, state in rows])
        return moves / ACTION_SCALE  # in float32: then the file's pixels give just these actions back
