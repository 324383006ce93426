"""A bounded replay buffer of simulator-corrected trajectories, kept on disk so that it survives a kill."""

from __future__ import annotations

import contextlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.units.folding import fold_actions
from utils import distributed
from utils.distributed import Share
from utils.files import remove_unfinished
from utils.reading.safetensors_file import open_safetensors
from utils.retry import Retry
from utils.tensor_files import tensor_bytes, write_safetensors

log = logging.getLogger(__name__)

ENTRY_FILE = re.compile(r"\d{8}(_\d+)?\.safetensors")
"""Names of the files of entries, as ``training.methods.online`` names them."""

PLACE = re.compile(r"(process_\d+/)?\w+", re.ASCII)
"""Where a saved state may say that an entry lies, below the buffer's folder: what is dropped later is deleted."""


@dataclass(frozen=True)
class Corrected:
    """What the simulator made of some plans, in the model's units.

    Attributes:
        features: (B, R, P, D) encoded frames, ``stride`` raw steps apart; the first one is the plan's start.
        proprio: (B, R, E_in) z-scored proprio at these frames.
        actions: (B, K, env_action_dim) z-scored raw actions, K = (R - 1) * stride.
        stride: raw steps between two frames; divides the frameskip.
    """

    features: Tensor
    proprio: Tensor
    actions: Tensor
    stride: int

    @property
    def num_bytes(self) -> int:
        """Memory of the tensors, and about the size of their file."""
        return tensor_bytes([self.features, self.proprio, self.actions])

    def num_starts(self, num_frames: int, frameskip: int) -> int:
        """Windows of ``num_frames`` model frames that fit into one trajectory; never one that leaves it."""
        return max(0, self.features.shape[1] - (num_frames - 1) * frameskip // self.stride)

    def part(self, rows: Tensor, length: int) -> Corrected:
        """Take the first ``length`` actions, and the frames they lead to, of some trajectories; ``rows``: (B,) bool."""
        frames = length // self.stride + 1
        return Corrected(
            self.features[rows, :frames], self.proprio[rows, :frames], self.actions[rows, :length], self.stride
        )

    def gather(
        self, trajectory: Tensor, start: Tensor, num_frames: int, frameskip: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gather features (W, num_frames, P, D), proprio and action blocks (W, num_frames - 1, A) of some windows.

        Args:
            trajectory: (W,) row of each.
            start: (W,) number of its first frame, below ``num_starts``.
            num_frames: Model frames of a window.
            frameskip: Raw steps between them.
        """
        step = frameskip // self.stride
        frame = start[:, None] + step * torch.arange(num_frames)
        raw = start[:, None] * self.stride + torch.arange((num_frames - 1) * frameskip)
        blocks = fold_actions(self.actions[trajectory[:, None], raw], frameskip)
        return self.features[trajectory[:, None], frame], self.proprio[trajectory[:, None], frame], blocks


@dataclass(frozen=True)
class Drawn:
    """Windows from the buffer.

    Attributes:
        windows: features (W, num_frames, P, D), proprio and action blocks of those that this process holds.
        numbers: (W,) of each among the ``total`` that all processes hold together.
    """

    windows: tuple[Tensor, Tensor, Tensor]
    numbers: Tensor
    total: int


class ReplayBuffer:
    """Corrected trajectories by slot; the oldest leave when ``capacity`` trajectories are exceeded.

    Each entry is one immutable file, written atomically when it is added. A file is deleted only after a training
    state that no longer needs it is on disk (``committed``), so every state ever saved can be resumed.

    Of several processes each holds consecutive rows of every entry, in a file of its own, and all know how many rows
    the others have: sizes, capacity and what is drawn are those of the whole buffer.

    Args:
        folder: Where the entries' files are.
        capacity: Most trajectories kept, >= 1. One takes about 4 * R * P * D bytes in memory and on disk.
        retry: while a disk is full or away; None gives up at once.
    """

    def __init__(self, folder: Path, capacity: int, retry: Retry | None = None) -> None:
        if capacity < 1:
            raise ValueError(f"method.replay_capacity must be at least 1, got {capacity}")
        self.folder, self.capacity, self.retry = folder, capacity, retry or Retry()
        self._entries: dict[str, Corrected] = {}  # name -> what this process holds of it, oldest first
        self._shares: dict[str, Share] = {}  # name -> which rows these are
        self._slots: dict[str, int] = {}  # name -> slot
        self._files: dict[str, list[tuple[str, int]]] = {}  # name -> (file without suffix, rows) in row order
        self._garbage: list[str] = []

    def __len__(self) -> int:
        """Trajectories kept, by all processes."""
        return sum(share.total for share in self._shares.values())

    @property
    def num_bytes(self) -> int:
        """Memory of all entries, in all processes."""
        return sum(_row_bytes(entry) * self._shares[name].total for name, entry in self._entries.items())

    def expected_bytes(self, growth: float) -> int:
        """Memory, and room on the disk, once ``growth`` times as many trajectories have come, within the capacity."""
        return int(self.num_bytes * min(growth, self.capacity / len(self))) if len(self) else 0

    def add(self, slot: int, name: str, entry: Corrected) -> None:
        """Keep ``entry`` under a slot and a unique ``name``, beside the earlier entries of the slot.

        All processes must call it, each with its rows, of which there may be none.

        Raises:
            ValueError: If the entry alone exceeds the capacity.
        """
        counts = distributed.gather(len(entry.features))
        if sum(counts) > self.capacity:
            raise ValueError(
                f"method.replay_capacity={self.capacity} is less than one refresh of {sum(counts)} trajectories"
            )
        files = [name if len(counts) == 1 else f"process_{rank}/{name}" for rank in range(len(counts))]
        here = distributed.rank()
        self._entries[name], self._slots[name] = entry, slot
        self._shares[name] = Share(sum(counts[:here]), counts[here], sum(counts))
        self._files[name] = [(file, count) for file, count in zip(files, counts, strict=True) if count]
        while len(self) > self.capacity:
            self._drop(next(iter(self._entries)))
        if counts[here]:
            self._write(files[here], entry)

    def entries(self, slot: int | None) -> list[Corrected]:
        """The entries of a slot, oldest first, or all of them."""
        return [self._entries[name] for name in self._names(slot)]

    def shares(self, slot: int | None) -> list[Share]:
        """Which rows of each of these entries this process has."""
        return [self._shares[name] for name in self._names(slot)]

    def draw(
        self, slot: int | None, at_most: int, num_frames: int, frameskip: int, draws: torch.Generator
    ) -> Drawn | None:
        """Draw up to ``at_most`` windows, without repetition, from a slot or from everything; None if there are none.

        All processes draw the same, and each takes those that it holds: what all train on is what one would train on.
        """
        entries, shares = self.entries(slot), self.shares(slot)
        starts = [entry.num_starts(num_frames, frameskip) for entry in entries]
        sizes = torch.tensor([share.total * count for share, count in zip(shares, starts, strict=True)])
        if not len(entries) or not sizes.sum():
            return None
        drawn = torch.randperm(int(sizes.sum()), generator=draws)[:at_most].sort().values
        ends = sizes.cumsum(0)
        owner = torch.searchsorted(ends, drawn, right=True)
        gathered, numbers = [], []
        for number in owner.unique().tolist():
            share, local = shares[number], drawn[owner == number] - (ends[number] - sizes[number])
            row = local // starts[number] - share.first
            here = (row >= 0) & (row < share.count)
            gathered.append(entries[number].gather(row[here], (local % starts[number])[here], num_frames, frameskip))
            numbers.append((owner == number).nonzero().squeeze(1)[here])
        features, proprio, actions = (torch.cat(parts) for parts in zip(*gathered, strict=True))
        return Drawn((features, proprio, actions), torch.cat(numbers), len(drawn))

    def _names(self, slot: int | None) -> list[str]:
        return [name for name in self._entries if slot is None or self._slots[name] == slot]

    def committed(self) -> None:
        """Delete the files that no saved training state needs any more."""
        if distributed.is_main():
            for file in self._garbage:
                with contextlib.suppress(OSError):  # it only takes room; a resumed run removes it
                    self._path(file).unlink(missing_ok=True)
        self._garbage.clear()

    def state_dict(self) -> dict[str, Any]:
        """Names only; the entries themselves are in their files."""
        entries = [[name, self._slots[name], entry.stride] for name, entry in self._entries.items()]
        spread = {name: files for name, files in self._files.items() if [file for file, _ in files] != [name]}
        return {"entries": entries, "files": {name: [list(pair) for pair in files] for name, files in spread.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Read the entries back, whatever number of processes wrote them; files of a later, unsaved past are removed.

        Raises:
            ValueError: If a file is missing or broken.
        """
        for kept in (self._entries, self._shares, self._slots, self._files, self._garbage):
            kept.clear()
        written_in = state.get("files", {})
        for name, slot, stride in state["entries"]:
            parts = {file: self._read(file) for file, _ in written_in.get(name, [(name, None)])}
            files = [(file, len(part["features"])) for file, part in parts.items()]
            share = distributed.share(sum(count for _, count in files))
            tensors = {
                key: torch.cat([part[key] for part in parts.values()])[share.rows].clone()
                for key in ("features", "proprio", "actions")
            }
            self._entries[name], self._slots[name] = Corrected(**tensors, stride=stride), slot
            self._shares[name], self._files[name] = share, files
        if distributed.is_main():
            self._clear_away()

    def _read(self, file: str) -> dict[str, Tensor]:
        if not isinstance(file, str) or not PLACE.fullmatch(file):
            raise ValueError(f"cannot resume: {file!r} is no name of a replay entry in {self.folder}")
        try:
            with open_safetensors(self._path(file), ours=("stride",)) as entry:
                return entry.read_all()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"cannot resume: the replay entry {self._path(file)} is missing or broken ({error})"
            ) from None

    def _clear_away(self) -> None:
        needed = {self._path(file) for files in self._files.values() for file, _ in files}
        for folder in (self.folder, *self.folder.glob("process_*")):
            remove_unfinished(folder)
            for path in folder.glob("*.safetensors"):
                if path not in needed and ENTRY_FILE.fullmatch(path.name):
                    path.unlink()

    def _write(self, name: str, entry: Corrected) -> None:
        tensors = {"features": entry.features, "proprio": entry.proprio, "actions": entry.actions}
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        write_safetensors(self._path(name), tensors, {"stride": str(entry.stride)}, self.retry)

    def _drop(self, name: str) -> None:
        del self._entries[name], self._slots[name], self._shares[name]
        self._garbage += [file for file, _ in self._files.pop(name)]

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def _row_bytes(entry: Corrected) -> int:
    """Memory of one trajectory of an entry."""
    return sum(t.shape[1:].numel() * t.element_size() for t in (entry.features, entry.proprio, entry.actions))
