"""The released layouts, and that of any environment: tables, and a file of images for each episode."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datasets.converting.target import Outline, Target
from datasets.files import dataset_error, write_whole
from datasets.formats.episode_files import episode_name
from datasets.formats.episodes import EpisodeWriter
from datasets.formats.point_maze import PointMazeWriter
from datasets.formats.pusht import PushTWriter
from datasets.formats.wall import WallWriter
from datasets.writer import Writer
from envs.pusht import ACTION_SCALE
from envs.pusht.shapes import SHAPE_KEY, SHAPES
from utils.tensor_files import write_torch

_REMEDY = "Convert to episodes, which holds any."


class EpisodesTarget(Target):
    """What ``EpisodeTrajectories`` reads."""

    called: ClassVar[str] = "episodes"
    writer: ClassVar[type[Writer]] = EpisodeWriter
    widths: ClassVar[Mapping[str, int]] = {}
    image_types: ClassVar[Sequence[str]] = EpisodeWriter.image_types

    def __init__(self, place: Path, outline: Outline) -> None:
        super().__init__(place, outline)
        self._store = self.writer().store(outline.images)
        self._store.check_size(outline.frame.shape[-1])
        found = {"state": outline.data.state_dim, "action": outline.data.env_action_dim}
        for name, width in self.widths.items():
            if found[name] != width:
                raise dataset_error(f"to={self.called}", f"{name}s of {width} entries", found[name], _REMEDY)

    def bytes_needed(self) -> int:
        """Images and tables."""
        side = self.outline.frame.shape[-1]
        images = [self._store.bytes_needed(length, side) for length in self.outline.lengths]
        widest = 2 * self.outline.data.state_dim + self.outline.data.env_action_dim
        return sum(images) + len(images) * max(self.outline.lengths) * widest * 8

    def begin(self) -> None:
        """Nothing is needed."""

    def write(self, numbers: range) -> None:
        """Write the images of each."""
        for number in numbers:
            folder, position = self._where(number)
            frames = self.outline.frames(number)
            images = frames if self._store.dtype.is_floating_point else frames.round()
            self._store.write(
                folder / "obses" / episode_name(position, self._store.suffix), images.to(self._store.dtype)
            )

    def finish(self) -> None:
        """Write the tables, the states last."""
        for folder, numbers in self._parts().items():
            tables = self._tables(numbers)
            for name in sorted(tables, key=lambda name: name == "states"):
                write_torch(folder / f"{name}.pth", tables[name].clone())

    def _parts(self) -> dict[Path, list[int]]:
        """Folders, and the episodes that go there."""
        return {self.place: [*range(len(self.outline.lengths))]}

    def _where(self, number: int) -> tuple[Path, int]:
        """Folder of an episode, and its number there."""
        return self.place, number

    def _tables(self, numbers: list[int]) -> dict[str, Tensor]:
        data = self.outline.data
        layouts = [data.layout(number) for number in numbers]
        return {
            "states": self._padded("state", numbers),
            "actions": self._padded("action", numbers),
            "proprio": self._padded("proprio", numbers),
            "seq_lengths": data.lengths[numbers],
            **{f"layout_{name}": torch.stack([layout[name] for layout in layouts]) for name in layouts[0]},
        }

    def _padded(self, name: str, numbers: list[int]) -> Tensor:
        """A column as a table (n, T, width), zero after the end of an episode."""
        rows = [torch.from_numpy(self.outline.columns(number)[name]) for number in numbers]
        table = pad_sequence(rows, batch_first=True)
        return table if table.dtype == torch.float64 else table.float()


class PointMazeTarget(EpisodesTarget):
    """What ``PointMazeTrajectories`` reads: the proprio values are the state."""

    called = "point_maze"
    writer = PointMazeWriter
    image_types = PointMazeWriter.image_types
    widths = {"state": 4, "action": 2}  # noqa: RUF012

    def _tables(self, numbers: list[int]) -> dict[str, Tensor]:
        tables = super()._tables(numbers)
        return {name: tables[name] for name in ("states", "actions", "seq_lengths")}


class WallTarget(EpisodesTarget):
    """What ``WallTrajectories`` reads: the proprio values are the state; all episodes have one length."""

    called = "wall"
    writer = WallWriter
    image_types = WallWriter.image_types
    widths = {"state": 2, "action": 2}  # noqa: RUF012

    def __init__(self, place: Path, outline: Outline) -> None:
        super().__init__(place, outline)
        layout = outline.data.layout(0)
        if len(set(outline.lengths)) > 1 or not {"fix_door_location", "fix_wall_location"} <= layout.keys():
            found = f"lengths {min(outline.lengths)}..{max(outline.lengths)}, layout {', '.join(layout) or 'none'}"
            raise dataset_error("to=wall", "one length, and places of door and wall", found, _REMEDY)

    def _tables(self, numbers: list[int]) -> dict[str, Tensor]:
        tables, steps = super()._tables(numbers), self.outline.lengths[0]
        places = {
            f"{name}_locations": tables[f"layout_fix_{name}_location"][:, None].expand(-1, steps, 1).float()
            for name in ("door", "wall")
        }
        return {name: tables[name] for name in ("states", "actions")} | places


class PushTTarget(EpisodesTarget):
    """What ``PushTTrajectories`` reads: two folders, videos, and actions in pixels."""

    called = "pusht"
    writer = PushTWriter
    image_types = PushTWriter.image_types
    widths = {"state": 7, "action": 2}  # noqa: RUF012

    def __init__(self, place: Path, outline: Outline) -> None:
        super().__init__(place, outline)
        self._order = {True: sorted(outline.validation), False: []}
        self._order[False] = [n for n in range(len(outline.lengths)) if n not in outline.validation]
        if not all(self._order.values()):
            remedy = "Choose env.dataset.split_ratio so that there are some."
            raise dataset_error("to=pusht", "episodes that train and some that validate", "only one kind", remedy)

    def finish(self) -> None:
        """Write the tables, and lengths and shapes as lists."""
        for folder, numbers in self._parts().items():
            lists = {"seq_lengths": [self.outline.lengths[number] for number in numbers]}
            shapes = [self.outline.data.layout(number).get(SHAPE_KEY) for number in numbers]
            lists["shapes"] = ["T" if shape is None else SHAPES[int(shape)] for shape in shapes]  # type: ignore[misc]
            for name, values in lists.items():
                write_whole(folder / f"{name}.pkl", functools.partial(pickle.dump, values), "pickle")
        super().finish()

    def _parts(self) -> dict[Path, list[int]]:
        return {self.place / "train": self._order[False], self.place / "val": self._order[True]}

    def _where(self, number: int) -> tuple[Path, int]:
        validates = number in self.outline.validation
        return self.place / ("val" if validates else "train"), self._order[validates].index(number)

    def _tables(self, numbers: list[int]) -> dict[str, Tensor]:
        states, actions = self._padded("state", numbers), self._padded("action", numbers)
        moves = actions * ACTION_SCALE
        if not torch.equal(moves / ACTION_SCALE, actions):  # float32 lacks such a number; float64 has it
            moves = actions.double() * ACTION_SCALE
        return {
            "states": states[..., :5].contiguous(),
            "velocities": states[..., 5:].contiguous(),
            "rel_actions": moves,
            "abs_actions": states[..., :2] + moves,
        }
