"""Demonstrations by people, replayed with noise: how DINO-WM's PushT data came about."""

from __future__ import annotations

import copy
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Len
from numpy.typing import NDArray
from torch import Tensor

from datasets.files import dataset_error
from datasets.formats.rows import Array
from datasets.formats.zarr_replay import ZarrRows
from envs.base import VectorEnv
from envs.expert import Expert
from envs.pusht import ACTION_SCALE
from envs.pusht.expert_episode import Pixel
from envs.pusht.shapes import SHAPE_KEY
from utils.ranges import CountOrZero, Seed

_WIDTHS = {"state": 5, "action": 2}
_LEAST_SPAN = 10.0  # pixels: targets within less are no pixels of the window


@dataclass(frozen=True)
class Demonstration:
    """One recording at 10 Hz.

    Attributes:
        start: (5,) float32, agent x, y, block x, y, pixels, and block angle.
        targets: (T, 2) float32, where the agent was told to go, pixels.
    """

    start: NDArray[np.float32]
    targets: NDArray[np.float32]


class PushTDemonstrations(Expert):
    """Demonstrations of PushT, each replayed once without noise and some times with noise on its commands.

    An episode begins in the first recorded state, at rest, and steers to the recorded targets from wherever noise has
    led the agent; it has as many steps as the demonstration. Some demonstrations are for ``val``, undisturbed; of the d
    others, trajectory n of ``train`` is number n % d, undisturbed while n < d. With Diffusion Policy's 206
    demonstrations, 185 for ``train`` make 18685 trajectories, as many as were released.

    Args:
        demonstrations: Replay buffer in zarr, ``pusht_cchi_v7_replay.zarr`` say: a folder or a ``.zip`` of one.
        replays: Disturbed replays of each demonstration.
        noise: Distribution of the noise on each component of a command.
        noise_levels: Its standard deviations, pixels, of which each disturbed replay draws one.
        num_val: Demonstrations for ``val``.
        split_seed: Of their choice.

    Raises:
        DatasetError: If there is no such recording, or it is another environment's.
        ValueError: If none is named, or ``num_val`` leaves none for ``train``.

    Source: DINO-WM, arXiv 2411.04983, appendix A.1. Deviation: the paper states neither distribution nor size of the
    noise, nor which demonstrations are for validation; the defaults are ours.
    """

    def __init__(
        self,
        demonstrations: str | None = None,
        replays: CountOrZero = 100,
        noise: Literal["normal", "uniform"] = "normal",
        noise_levels: Annotated[Sequence[Pixel], Len(1, 1000)] = (5.0, 10.0, 20.0),
        num_val: CountOrZero = 21,
        split_seed: Seed = 42,
    ) -> None:
        if not demonstrations:
            raise ValueError(
                "env.collector.demonstrations=null: name the folder of the recordings, "
                "/path/to/pusht_cchi_v7_replay.zarr (docs/data.md says where it comes from)"
            )
        self.path = Path(demonstrations).expanduser()
        self.replays, self.noise, self.noise_levels = replays, noise, tuple(map(float, noise_levels))
        self.num_val, self.split_seed = num_val, split_seed
        self._subset = "train"
        if num_val >= len(self._recorded):
            raise ValueError(
                f"env.collector.num_val={num_val} must be less than the {len(self._recorded)} demonstrations of "
                f"{self.path}, so that some are left for training"
            )

    @functools.cached_property
    def _recorded(self) -> list[Demonstration]:
        return read_demonstrations(self.path)

    @property
    def _own(self) -> list[Demonstration]:
        """The demonstrations of this part of the data, in their order."""
        order = np.random.default_rng(self.split_seed).permutation(len(self._recorded))
        own = order[: self.num_val] if self._subset == "val" else order[self.num_val :]
        return [self._recorded[number] for number in sorted(own.tolist())]

    @property
    def most_episodes(self) -> int:
        """All demonstrations of this part, and their replays."""
        return len(self._own) * (1 if self._subset == "val" else 1 + self.replays)

    @property
    def most_steps(self) -> int:
        """The length of the longest demonstration."""
        return max(len(each.targets) for each in self._recorded)

    def settings(self) -> dict[str, Any]:
        """Name all options, and what was recorded instead of its place."""
        digest = hashlib.sha256()
        for each in self._recorded:
            digest.update(each.start.tobytes() + each.targets.tobytes())
        names = ("replays", "noise", "num_val", "split_seed")
        options = {name: getattr(self, name) for name in names} | {"noise_levels": list(self.noise_levels)}
        return options | {"demonstrations": f"sha256 {digest.hexdigest()[:16]}"}

    def of_subset(self, subset: str) -> PushTDemonstrations:
        """``train`` with its disturbed replays, ``val`` without."""
        other = copy.copy(self)
        other._subset = subset
        return other

    def begin(self, env: VectorEnv, rngs: Sequence[np.random.Generator], num_steps: int) -> Replays:
        """Begin the first of them."""
        return self.numbered(env, range(len(rngs)), rngs, num_steps)

    def numbered(
        self, env: VectorEnv, numbers: Sequence[int], rngs: Sequence[np.random.Generator], num_steps: int
    ) -> Replays:
        """See the base class."""
        own = self._own
        chosen = [own[number % len(own)] for number in numbers]
        targets = [
            each.targets + (self._drawn(rng, len(each.targets)) if number >= len(own) else 0)
            for number, each, rng in zip(numbers, chosen, rngs, strict=True)
        ]
        return Replays(np.stack([each.start for each in chosen]), targets, num_steps)

    def _drawn(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        level = rng.choice(self.noise_levels)
        if self.noise == "uniform":
            return rng.uniform(-1, 1, (count, 2)).astype(np.float32) * np.float32(level * 3**0.5)
        return rng.standard_normal((count, 2)).astype(np.float32) * np.float32(level)


class Replays:
    """Episodes that follow targets (T, 2), pixels; see ``envs.expert.Episodes``."""

    def __init__(self, starts: NDArray[np.float32], targets: Sequence[NDArray[np.float32]], num_steps: int) -> None:
        """Begin in ``starts`` (B, 5), at rest, and play at most ``num_steps``."""
        self.states = torch.from_numpy(np.pad(starts, ((0, 0), (0, 2)))).double()
        self.layouts = {SHAPE_KEY: torch.zeros(len(starts), 1, dtype=torch.int64)}  # the T
        self.lengths = torch.tensor([min(len(each), num_steps) for each in targets])
        self._targets = torch.zeros(len(targets), num_steps, 2)
        for row, each in zip(self._targets, targets, strict=True):
            row[: len(each)] = torch.from_numpy(each)[:num_steps]

    def act(self, step: int, states: Tensor) -> Tensor:
        """Actions (B, 2) from where the agents are to their targets; zero where an episode is over."""
        moves = (self._targets[:, step].double() - states[:, :2]).float()
        return torch.where((self.lengths > step)[:, None], moves, 0.0) / ACTION_SCALE


def read_demonstrations(path: Path) -> list[Demonstration]:
    """Read states and targets of a replay buffer with PushT's columns ``state`` and ``action``; images stay unread.

    Raises:
        DatasetError: If it is something else.
    """
    rows = ZarrRows(path)
    tables: dict[str, Array] = {}
    for name, width in _WIDTHS.items():
        table: Array = rows.table(name) if name in rows.names else np.empty(0)
        if table.ndim != 2 or table.shape[-1] != width or not np.isfinite(table).all():
            remedy = "Give Diffusion Policy's demonstrations of PushT."
            raise dataset_error(f"{path}, data/{name}", f"(rows, {width}) finite numbers", table.shape, remedy)
        tables[name] = table.astype(np.float32)
    if np.ptp(tables["action"], axis=0).max() < _LEAST_SPAN:
        span = f"{tables['action'].min():g} to {tables['action'].max():g}"
        raise dataset_error(f"{path}, data/action", "places in a window of 512 pixels", span, "Convert them to pixels.")
    ends = np.cumsum(rows.lengths)
    return [
        Demonstration(tables["state"][end - length], tables["action"][end - length : end])
        for end, length in zip(ends, rows.lengths, strict=True)
    ]
