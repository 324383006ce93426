"""Reading the tables of a data set once, episode by episode."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from datasets.previewing.columns import SAMPLED_ROWS, Array, Column, ColumnReader
from datasets.trajectories import Trajectories

TABLES = ("actions", "proprio", "states")
USUAL = 0.99  # quantile of changes from one row to the next that still counts as usual


@dataclass(frozen=True)
class Episode:
    """What is kept of one episode's tables.

    Attributes:
        number: Of the trajectory.
        length: Raw actions.
        broken: What cannot be used of its tables, and where: "states is nan at step 3"; empty if all can.
        digest: Of all rows of states and actions.
        start: Digest of the first state.
        constant: Columns of the actions that never change.
        change: (2, S) largest change of each column of the states from one row to the next, and the same if the
            column is an angle.
        change_at: (2, S) rows to which these lead.
        late: Largest time between two rows over the usual one; 1 where no times were recorded.
        late_at: Row after which that is.
    """

    number: int
    length: int
    broken: str
    digest: bytes
    start: bytes
    constant: tuple[int, ...]
    change: Array
    change_at: Array
    late: float
    late_at: int


@dataclass(frozen=True)
class Survey:
    """What the tables of some episodes say.

    Attributes:
        parts: Number of an episode -> ``train`` or ``val``; of all episodes.
        overlap: Numbers that are in both.
        episodes: Those that were read, by number.
        columns: Of the tables.
        usual: (S,) change of each column of the states between rows that is seldom exceeded; 0 where none changes.
    """

    parts: Mapping[int, str]
    overlap: Sequence[int]
    episodes: Sequence[Episode]
    columns: Sequence[Column]
    usual: Array

    def named(self, number: int) -> str:
        """An episode for people: "7 (train)"."""
        return f"{number} ({self.parts.get(number, 'unused')})"

    def of(self, table: str) -> list[Column]:
        """The columns of one table."""
        return [column for column in self.columns if column.table == table]

    def jumps(self) -> list[tuple[Episode, int, float, int]]:
        """The largest change of each episode against the usual one: (episode, column, how many times that, row)."""
        angle = [is_angle(column) for column in self.of("states")]
        found = []
        for episode in self.episodes:
            change = np.where(angle, episode.change[1], episode.change[0])
            times = np.divide(change, self.usual, out=np.zeros_like(change), where=self.usual > 0)
            column = int(times.argmax())
            at = episode.change_at[int(angle[column])][column]
            found.append((episode, column, float(times[column]), int(at)))
        return found


def is_angle(column: Column) -> bool:
    """Whether a column goes once round, in radians: its jumps by 2 pi are none."""
    return column.low is not None and column.high is not None and 6.0 < column.high - column.low < 2 * math.pi + 1e-3


def choose(parts: Mapping[int, str], numbers: Sequence[int], most: int | None, rng: np.random.Generator) -> list[int]:
    """Draw at most so many of these episodes, ascending; up to half of them from ``val``, which is smaller."""
    if most is None or most >= len(numbers):
        return list(numbers)
    val = [number for number in numbers if parts.get(number) == "val"]
    rest = [number for number in numbers if parts.get(number) != "val"]
    of_val = max(min(len(val), most // 2), most - len(rest))
    drawn = [*rng.permutation(val)[:of_val], *rng.permutation(rest)[: most - of_val]]
    return sorted(int(number) for number in drawn)


def survey(data: Trajectories, most: int | None, rng: np.random.Generator) -> Survey:
    """Read the tables of at most ``most`` episodes, or of all if it is None."""
    train, val = (part.tolist() for part in data.train_val())
    parts = dict.fromkeys(train, "train") | dict.fromkeys(val, "val")
    numbers = choose(parts, range(len(data)), most, rng)
    share = SAMPLED_ROWS / max(1, int(data.lengths[numbers].sum()))
    readers = {table: ColumnReader(share, rng) for table in TABLES}
    changes = ColumnReader(share, rng)
    episodes = [
        _read(data, number, readers, changes) for number in tqdm(numbers, desc="tables", unit="episode", leave=False)
    ]
    units = data.normalizer
    expected = {
        "actions": (units.action_mean, units.action_std),
        "proprio": (units.proprio_mean, units.proprio_std),
        "states": (units.state_mean, units.state_std),
    }
    columns = [
        column
        for table, reader in readers.items()
        for column in reader.columns(table, *(each.double().numpy() for each in expected[table]))
    ]
    overlap = sorted(set(train) & set(val))
    return Survey(parts, overlap, episodes, columns, _usual(columns, changes.sampled().astype(np.float64)))


def _usual(columns: Sequence[Column], sampled: Array) -> Array:
    angle = [is_angle(column) for column in columns if column.table == "states"]
    if not len(sampled):
        return np.zeros(len(angle))
    return np.quantile(np.where(angle, _turned(sampled), sampled), USUAL, axis=0)


def _turned(change: Array) -> Array:
    return np.minimum(change, np.abs(2 * math.pi - change))


def rows_of(data: Trajectories, table: str, number: int) -> Array:
    """The rows (T, D) of one episode that are there of the ``length`` that should be."""
    found = data.proprio(number) if table == "proprio" else getattr(data, table)[number]
    return found[: int(data.lengths[number])].double().numpy()


def _read(data: Trajectories, number: int, readers: Mapping[str, ColumnReader], changes: ColumnReader) -> Episode:
    length, broken, tables = int(data.lengths[number]), "", {}
    for table, reader in readers.items():
        rows = tables[table] = rows_of(data, table, number)
        sound = np.isfinite(rows).all(1)
        reader.add(rows[sound])
        if not sound.all():
            step = int((~sound).argmax())
            broken = broken or f"{table} is {rows[step][~np.isfinite(rows[step])][0]} at step {step}"
        elif len(rows) < length:
            broken = broken or f"{table} has {len(rows)} rows for {length} steps"
    actions, states = tables["actions"], tables["states"]
    with np.errstate(invalid="ignore"):  # of infinities
        change = np.abs(np.diff(states, axis=0))
    change = np.where(np.isfinite(change), change, 0.0)
    changes.add(change)
    change = np.concatenate([np.zeros((1, states.shape[1])), change])
    both = np.stack([change, _turned(change)])  # whether it is an angle, all episodes together will tell
    late, late_at = _latest(data, number, length)
    return Episode(
        number=number,
        length=length,
        broken=broken,
        digest=hashlib.blake2b(states.tobytes() + actions.tobytes(), digest_size=16).digest(),
        start=hashlib.blake2b(states[:1].tobytes(), digest_size=16).digest(),
        constant=tuple(np.flatnonzero((actions == actions[:1]).all(0)).tolist()) if len(actions) > 1 else (),
        change=both.max(1),
        change_at=both.argmax(1).astype(np.float64),
        late=late,
        late_at=late_at,
    )


def _latest(data: Trajectories, number: int, length: int) -> tuple[float, int]:
    times = data.times(number)
    if times is None or length < 3:
        return 1.0, 0
    between = np.diff(times[:length].double().numpy())
    usual = float(np.median(between))
    worst = int(np.abs(between - usual).argmax())
    return (float(between[worst] / usual), worst) if usual else (math.inf, worst)
