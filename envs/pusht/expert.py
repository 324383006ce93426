"""The scripted pushes behind the PushT data that are made here."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datasets.collecting.behaviour import Behaviour, Recording
from datasets.files import write_whole
from datasets.formats.episode_store import EpisodeStore, VideoStore
from datasets.formats.pusht import ACTION_SCALE
from datasets.formats.tables import is_recorded
from envs.base import VectorEnv
from envs.process_vector import ProcessVectorEnv
from envs.pusht.expert_episode import PushEpisode, PushOptions
from envs.pusht.shapes import SHAPE_KEY, SHAPES


@dataclass(frozen=True)
class PushTScriptedPusher(PushOptions, Behaviour):
    """Purposeful pushes, disturbed by noise of another level in each episode; those of ``val`` are undisturbed.

    A script pushes the block to a pose, then to the next one, until the episode ends: to the green landmark of the
    images or to a random pose. It watches the disturbed state, so that it pushes on from where the noise has led it.

    Attributes:
        stream: see ``Behaviour``; ``of_subset`` sets it. The others are those of ``PushOptions``.

    Deviation: the released data replay 206 demonstrations by people, which are not part of this project, with noise on
    the commands. The statistics of these data are close to theirs.
    """

    stream: int = 0

    folder: ClassVar[str] = "pusht_noise"
    default_trajectories: ClassVar[int] = 18685
    default_steps: ClassVar[int] = 246
    subsets: ClassVar[Mapping[str, int]] = {"train": 18685, "val": 21}
    image_types: ClassVar[tuple[str, ...]] = ("mp4",)

    def settings(self) -> dict[str, Any]:
        """All options in plain values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def of_subset(self, subset: str) -> PushTScriptedPusher:
        """``train`` as configured, ``val`` without noise, as in the released data."""
        return self if subset == "train" else replace(self, noise_levels=(0.0,), stream=self.stream + 1)

    def make_env(self, image_size: int) -> VectorEnv:
        """PushT in this process: collecting is spread over processes already."""
        return ProcessVectorEnv("envs.pusht.simulator:PushTSimulator", image_size=image_size, num_workers=0)

    def store(self, image_type: str) -> EpisodeStore:
        """One video per episode."""
        return VideoStore()

    def begin(self, rngs: Sequence[np.random.Generator], num_steps: int) -> Pushes:
        """Draw one episode per generator."""
        return Pushes([PushEpisode(self, rng, num_steps) for rng in rngs])

    def tables(self, recording: Recording) -> dict[str, Tensor]:
        """Rows of the tables of ``pusht_noise``, zero after an episode's end; shapes as numbers."""
        states = recording.states[:, :-1].float()
        moves = recording.actions * ACTION_SCALE
        rows = {
            "abs_actions": states[..., :2] + moves,
            "rel_actions": moves,
            "states": states[..., :5],
            "velocities": states[..., 5:],
        }
        played = is_recorded(recording.lengths, moves.shape[1])[..., None]
        whole = {"seq_lengths": recording.lengths, "shapes": recording.layouts[SHAPE_KEY][:, 0]}
        return {name: table * played for name, table in rows.items()} | whole

    def write_table(self, folder: Path, name: str, table: Tensor) -> None:
        """Lengths and names of shapes as pickled lists, the others as tensors."""
        values: list[Any] = table.tolist()
        if name == "shapes":
            values = [SHAPES[index] for index in values]
        elif name != "seq_lengths":
            return super().write_table(folder, name, table)
        write_whole(folder / f"{name}.pkl", lambda file: file.write(pickle.dumps(values)), "pickle")


class Pushes:
    """Episodes that are played by watching them; see ``behaviour.Episodes``."""

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
