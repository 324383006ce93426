"""Episodes that lie in columns of named values, a row for each raw step, as robotics libraries keep them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Len
from torch import Tensor

from datasets.files import DatasetError, dataset_error
from datasets.formats.rows import AGAIN, Array, Rows
from datasets.formats.square_frames import fitted
from datasets.formats.tables import chosen_count
from datasets.formats.units import units_of
from datasets.trajectories import Trajectories, random_split, valid_rows
from datasets.units.normalizer import Normalizer
from utils.nearby import nearest_names
from utils.ranges import Index, Seed, Share, Side, TrajectoryCount

LAYOUT = "layout_"
"""What the names of columns with the episodes' layout begin with; their first row of an episode counts."""
VALIDATION = "validation"
"""Column that says, with 1, which episodes validate."""
Columns = str | Annotated[list[str], Len(1, 100)]
"""One column, or several that are joined in this order."""


class ColumnTrajectories(Trajectories, ABC):
    """Trajectories of columns; only actions, states and proprio values are read into memory.

    Attributes:
        usual_state, usual_action, usual_proprio: Columns that are taken where none is named, the first that is there.
        last_is_foreign: Whether the last row of an episode has an action that was done before its first frame.

    Raises:
        DatasetError: If a file or column is missing, damaged, of another shape or type, or not finite.
        ValueError: If ``split_ratio`` leaves nothing to train on.

    Deviation: an entry of the states or proprio values that never changes is given a standard deviation of 1, since
    recorded states of robots have such entries.
    """

    usual_state: ClassVar[tuple[str, ...]] = ("state",)
    usual_action: ClassVar[tuple[str, ...]] = ("action",)
    usual_proprio: ClassVar[tuple[str, ...]] = ("proprio",)
    last_is_foreign: ClassVar[bool] = False

    _proprio: list[Tensor]

    def __init__(
        self,
        name: str,
        data_path: str | None = None,
        image: str | None = None,
        state: Columns | None = None,
        action: Columns | None = None,
        proprio: Columns | list[Index] | None = None,
        units: Literal["auto", "stored", "pusht_replay"] = "auto",
        last_action: Literal["auto", "keep", "drop"] = "auto",
        image_size: Side | None = None,
        n_rollout: TrajectoryCount | None = None,
        normalize_action: bool = True,
        split_ratio: Share = 0.9,
        split_seed: Seed = 42,
    ) -> None:
        """Read all columns but the images.

        Args:
            name: Of the environment that the data come from.
            data_path: Where they lie; None is their usual place below ``$DATASET_DIR``.
            image: Column of the images; None if there is only one that can be meant.
            state: Columns of the state, from which a simulator starts; None is the format's usual one.
            action: Columns of the raw action; None is the format's usual one.
            proprio: Columns of the proprio values, or the entries of the state that they are; None is the format's
                usual column if there is one, otherwise the entries that the environment's own data use, or all.
            units: What states and actions are measured in; see ``datasets.formats.units``.
            last_action: Whether the last row of an episode has an action (``keep``), or only the last frame and state
                (``drop``); ``auto`` drops what is NaN, and all in formats where it is another's, unless
                ``datasets.convert`` wrote them.
            image_size: Side that frames are cut square and resized to; None keeps them, which must be square then.
            n_rollout: Use only the first so many trajectories; None uses all.
            normalize_action: z-score actions, states and proprio values; false leaves all three raw.
            split_ratio: Part of the trajectories that train, where the files themselves do not say.
            split_seed: Of that split.
        """
        self.name = name
        self.data_path = Path(data_path).expanduser() if data_path else self.usual_place(name)
        self._rows = rows = self.open_rows(self.data_path)
        self._image = self._image_column(image)
        states = self._joined(state or self._usual(self.usual_state))
        self._units = units_of(units, name, states.shape[1])
        self._read(states, self._joined(action or self._usual(self.usual_action)), last_action)
        self._proprio = self._read_proprio(proprio)
        self._check_finite()
        self.normalizer = self._fitted() if normalize_action else Normalizer.identity(*self._widths())
        count = chosen_count(n_rollout, len(rows.lengths), self.data_path)
        self.lengths = self.lengths[:count]
        self.states, self.actions, self._proprio = self.states[:count], self.actions[:count], self._proprio[:count]
        self._layouts = self._read_layouts(count)
        self._split = rows.split(count) or self._column_split() or random_split(count, split_ratio, split_seed)
        self._stored_size, self._wanted_size = rows.image_size(self._image), image_size
        self.frame_size = image_size or self._side()
        self._check_first()
        self.images = f"{type(self).__name__} {self._image}"

    @abstractmethod
    def open_rows(self, path: Path) -> Rows:
        """Open what lies at ``data_path``.

        Raises:
            DatasetError: If it is missing, damaged or something else.
        """

    def proprio(self, trajectory: int) -> Tensor:
        """The proprio values (T, E)."""
        return self._proprio[trajectory]

    def frames(self, trajectory: int, steps: Sequence[int]) -> Tensor:
        """Read the frames at these raw steps: (len(steps), 3, S, S), uint8 or float32, 0..255."""
        if not 0 <= trajectory < len(self):
            raise IndexError(f"episode {trajectory} of {len(self)}")
        length = int(self._rows.lengths[trajectory])
        if len(steps) and not 0 <= min(steps) <= max(steps) < length:
            raise IndexError(f"steps {list(steps)} of an episode with {length} frames")
        frames = self._rows.frames(self._image, trajectory, list(steps))
        if tuple(frames.shape[2:]) != self._stored_size:
            found = f"{frames.shape[3]} x {frames.shape[2]}"
            expected = f"frames of {self._stored_size[1]} x {self._stored_size[0]} pixels, as the first"
            raise dataset_error(f"{self.data_path}, episode {trajectory}", expected, found, AGAIN)
        return fitted(frames, self.frame_size)

    def fit_frames(self, size: int) -> None:
        """See the base class; frames are resized unless ``image_size`` says otherwise."""
        if self._wanted_size is not None:
            super().fit_frames(size)
        self.frame_size = size

    def times(self, trajectory: int) -> Tensor | None:
        """Recorded times (at least its length,) of the rows, seconds; None where there are none."""
        times = self._rows.times(trajectory)
        return None if times is None else torch.from_numpy(times.astype(np.float64))

    def layout(self, trajectory: int) -> dict[str, Tensor]:
        """The episode layout, {} if the data set has none."""
        return {name: table[trajectory] for name, table in self._layouts.items()}

    def train_val(self) -> tuple[Tensor, Tensor]:
        """Trajectory numbers of the training and of the validation part."""
        return self._split

    def column(self, name: str) -> list[Array]:
        """The rows of any column, by episode, as they are stored."""
        return self._by_episode(self._table(name))

    def _read(self, table: Array, action_table: Array, last_action: str) -> None:
        """Fill in lengths, states and actions, in the environment's units."""
        states, actions = self._by_episode(table), self._by_episode(action_table)
        is_foreign = self.last_is_foreign and VALIDATION not in self._rows.names
        drops_all = last_action == "drop" or (last_action == "auto" and is_foreign)
        drops = [drops_all or bool(np.isnan(rows[-1]).any()) for rows in actions]
        lengths = [len(rows) - dropped for rows, dropped in zip(actions, drops, strict=True)]
        if min(lengths) < 1:
            found = f"one row in episode {lengths.index(min(lengths))}"
            is_nan = np.isnan(actions[lengths.index(min(lengths))]).any()
            remedy = "Remove that episode" + (
                ": its only action is NaN." if is_nan else ", or set last_action=keep if its only action is one."
            )
            raise dataset_error(self.data_path, "at least two rows in each episode", found, remedy)
        self.lengths = torch.tensor(lengths)
        used = [rows[:length] for rows, length in zip(actions, lengths, strict=True)]
        pairs = [self._units.convert(*pair) for pair in zip(states, used, strict=True)]
        self.states, self.actions = ([torch.from_numpy(pair[part]) for pair in pairs] for part in (0, 1))

    def _read_proprio(self, proprio: Columns | list[Index] | None) -> list[Tensor]:
        if proprio is None and self._units.proprio is None:
            proprio = next((name for name in self.usual_proprio if name in self._rows.names), None)
        if isinstance(proprio, str) or (proprio and isinstance(proprio[0], str)):
            return [torch.from_numpy(rows) for rows in self._by_episode(self._joined(proprio))]
        entries: Any = self._units.proprio if proprio is None else proprio
        if entries is None:
            return list(self.states)
        if max(entries) >= self.state_dim:
            remedy = "Correct env.dataset.proprio."
            raise dataset_error(f"proprio={entries}", f"entries below {self.state_dim}", max(entries), remedy)
        return [states[:, list(entries)] for states in self.states]

    def _read_layouts(self, count: int) -> dict[str, Tensor]:
        names = [name for name in self._rows.names if name.startswith(LAYOUT)]
        tables = {name.removeprefix(LAYOUT): [rows[0] for rows in self.column(name)] for name in names}
        stored = {name: torch.from_numpy(np.stack(rows)[:count]) for name, rows in tables.items()}
        return stored or self._units.layouts(count)

    def _column_split(self) -> tuple[Tensor, Tensor] | None:
        """The split that a conversion has kept."""
        if VALIDATION not in self._rows.names:
            return None
        validates = torch.tensor([bool(rows.flat[0]) for rows in self.column(VALIDATION)])[: len(self)]
        parts = (~validates).nonzero().flatten(), validates.nonzero().flatten()
        return parts if len(parts[0]) else None

    def _usual(self, names: Sequence[str]) -> str:
        return next((name for name in names if name in self._rows.names), names[0])

    def _joined(self, names: Columns) -> Array:
        """Columns side by side, (rows, width), float32 or float64."""
        tables = []
        for name in [names] if isinstance(names, str) else names:
            table = self._table(name)
            if table.dtype.kind not in "fiub" or table.ndim > 3:
                remedy = "Name another column."
                found = "rows of different lengths" if table.dtype == object else f"{table.dtype} {table.shape}"
                raise dataset_error(f"{self.data_path}, column {name}", "numbers", found, remedy)
            is_double = table.dtype.itemsize == 8
            tables.append(table.reshape(len(table), -1).astype(np.float64 if is_double else np.float32))
        return tables[0] if len(tables) == 1 else np.concatenate(tables, 1)

    def _table(self, name: str) -> Array:
        if name not in self._rows.names:
            known = ", ".join(self._rows.names)
            raise DatasetError(
                f"{self.data_path} has no column {name}{nearest_names(name, self._rows.names)}; it has {known}. "
                "Say which is meant with env.dataset.state, .action, .proprio or .image"
            )
        table = self._rows.table(name)
        rows = int(self._rows.lengths.sum())
        if len(table) != rows:
            where = f"{self.data_path}, column {name}"
            raise dataset_error(where, f"{rows} rows, as the episodes have", len(table), AGAIN)
        return table

    def _by_episode(self, table: Array) -> list[Array]:
        return np.split(table, np.cumsum(self._rows.lengths)[:-1])

    def _image_column(self, name: str | None) -> str:
        known = self._rows.image_names
        if name is None and len(known) == 1:
            return known[0]
        if name is None or name not in known:
            found = f"{name}{nearest_names(name, known)}" if name else "none named"
            remedy = "Set env.dataset.image."
            raise dataset_error(
                self.data_path, f"a column of images ({', '.join(known) or 'it has none'})", found, remedy
            )
        return name

    def _side(self) -> int:
        height, width = self._stored_size
        if height != width:
            remedy = "Set env.dataset.image_size: they are cut square, then resized."
            raise dataset_error(self.data_path, "square frames", f"{width} x {height} pixels", remedy)
        return height

    def _check_first(self) -> None:
        """Refuse images in other units, by the first frame."""
        first = self._rows.frames(self._image, 0, [0])
        low, high = first.min().item(), first.max().item()
        if not (low > -1 and 1 < high < 256):
            remedy = "Images are stored as 0..255, not 0..1; convert them."
            where = f"{self.data_path}, column {self._image}"
            raise dataset_error(where, "values in 0..255", f"{low:g}..{high:g} in its first frame", remedy)

    def _check_finite(self) -> None:
        for what, parts in (("states", self.states), ("actions", self.actions), ("proprio values", self._proprio)):
            for number, rows in enumerate(parts):
                if not rows.isfinite().all():
                    step, entry = (~rows.isfinite()).nonzero()[0].tolist()
                    found = f"{rows[step, entry].item()} at episode {number}, step {step}"
                    raise dataset_error(self.data_path, f"finite {what}", found, "Remove that episode, or mend it.")

    def _widths(self) -> tuple[int, int, int]:
        return self.env_action_dim, self.state_dim, self.proprio_dim

    def _fitted(self) -> Normalizer:
        """Statistics of all episodes, or those that the environment's checkpoints are trained with."""
        if (fixed := self._units.normalizer(*self._widths())) is not None:
            return fixed
        return Normalizer.fit(*valid_rows(self), still=True)
