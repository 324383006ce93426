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
from utils.tensor_files import write_safetensors

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
        stride: Raw steps between two frames; divides the frameskip.
    """

    features: Tensor
    proprio: Tensor
    actions: Tensor
    stride: int

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return {"features": self.features, "proprio": self.proprio, "actions": self.actions}

    @property
    def row_bytes(self) -> int:
        """Memory of one trajectory."""
        return sum(tensor.shape[1:].numel() * tensor.element_size() for tensor in self.tensors().values())

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
        windows: Features (W, num_frames, P, D), proprio and action blocks of those that this process holds.
        numbers: (W,) of each among the ``total`` that all processes hold together.
    """

    windows: tuple[Tensor, Tensor, Tensor]
    numbers: Tensor
    total: int


@dataclass(frozen=True)
class _Kept:
    """An entry of the buffer.

    Attributes:
        slot: Of the batches that it joins.
        rows: What this process holds of it.
        share: Which rows of the whole entry these are.
        files: Each file without suffix, and its number of rows, in their order.
    """

    slot: int
    rows: Corrected
    share: Share
    files: list[tuple[str, int]]


class ReplayBuffer:
    """Corrected trajectories by slot; the oldest leave when ``capacity`` trajectories are exceeded.

    Each entry is one immutable file, written atomically when it is added. A file is deleted only after a training
    state that no longer needs it is on disk (``committed``), so every state ever saved can be resumed.

    Of several processes each holds consecutive rows of every entry, in a file of its own, and all know how many rows
    the others have: sizes, capacity and what is drawn are those of the whole buffer.

    Args:
        folder: Where the entries' files are.
        capacity: Most trajectories kept, >= 1. One takes about 4 * R * P * D bytes in memory and on disk.
        retry: While a disk is full or away; None gives up at once.
    """

    def __init__(self, folder: Path, capacity: int, retry: Retry | None = None) -> None:
        if capacity < 1:
            raise ValueError(f"method.replay_capacity must be at least 1, got {capacity}")
        self.folder, self.capacity, self.retry = folder, capacity, retry or Retry()
        self._kept: dict[str, _Kept] = {}  # by name, oldest first
        self._garbage: list[str] = []

    def __len__(self) -> int:
        """Trajectories kept, by all processes."""
        return sum(kept.share.total for kept in self._kept.values())

    @property
    def num_bytes(self) -> int:
        """Memory of all entries, in all processes."""
        return sum(kept.rows.row_bytes * kept.share.total for kept in self._kept.values())

    def expected_bytes(self, growth: float) -> int:
        """Memory, and room on the disk, once ``growth`` times as many trajectories have come, within the capacity."""
        return int(self.num_bytes * min(growth, self.capacity / len(self))) if len(self) else 0

    def add(self, slot: int, name: str, entry: Corrected) -> None:
        """Keep ``entry`` under a slot and a unique ``name``, beside the earlier entries of the slot.

        All processes must call it, each with its rows, of which there may be none.

        Raises:
            ValueError: If the entry alone exceeds the capacity.
        """
        counts, here = distributed.gather(len(entry.features)), distributed.rank()
        if sum(counts) > self.capacity:
            raise ValueError(
                f"method.replay_capacity={self.capacity} is less than one refresh of {sum(counts)} trajectories"
            )
        files = [name if len(counts) == 1 else f"process_{rank}/{name}" for rank in range(len(counts))]
        written = [(file, count) for file, count in zip(files, counts, strict=True) if count]
        self._kept[name] = _Kept(slot, entry, Share(sum(counts[:here]), counts[here], sum(counts)), written)
        while len(self) > self.capacity:
            dropped = self._kept.pop(next(iter(self._kept)))
            self._garbage += [file for file, _ in dropped.files]
        if counts[here]:
            self._write(files[here], entry)

    def entries(self, slot: int | None) -> list[Corrected]:
        """The entries of a slot, oldest first, or all of them."""
        return [kept.rows for kept in self._of(slot)]

    def _of(self, slot: int | None) -> list[_Kept]:
        return [kept for kept in self._kept.values() if slot is None or kept.slot == slot]

    def draw(
        self, slot: int | None, at_most: int, num_frames: int, frameskip: int, draws: torch.Generator
    ) -> Drawn | None:
        """Draw up to ``at_most`` windows, without repetition, from a slot or from everything; None if there are none.

        All processes draw the same, and each takes those that it holds: what all train on is what one would train on.
        """
        entries = self._of(slot)
        starts = [kept.rows.num_starts(num_frames, frameskip) for kept in entries]
        sizes = torch.tensor([kept.share.total * count for kept, count in zip(entries, starts, strict=True)])
        if not len(entries) or not sizes.sum():
            return None
        drawn = torch.randperm(int(sizes.sum()), generator=draws)[:at_most].sort().values
        ends = sizes.cumsum(0)
        owner = torch.searchsorted(ends, drawn, right=True)
        gathered, numbers = [], []
        for number in owner.unique().tolist():
            kept, local = entries[number], drawn[owner == number] - (ends[number] - sizes[number])
            row = local // starts[number] - kept.share.first
            here = (row >= 0) & (row < kept.share.count)
            gathered.append(kept.rows.gather(row[here], (local % starts[number])[here], num_frames, frameskip))
            numbers.append((owner == number).nonzero().squeeze(1)[here])
        features, proprio, actions = (torch.cat(parts) for parts in zip(*gathered, strict=True))
        return Drawn((features, proprio, actions), torch.cat(numbers), len(drawn))

    def committed(self) -> None:
        """Delete the files that no saved training state needs any more."""
        if distributed.is_main():
            for file in self._garbage:
                with contextlib.suppress(OSError):  # it only takes room; a resumed run removes it
                    self._path(file).unlink(missing_ok=True)
        self._garbage.clear()

    def state_dict(self) -> dict[str, Any]:
        """Names only; the entries themselves are in their files."""
        spread = {name: kept.files for name, kept in self._kept.items() if [file for file, _ in kept.files] != [name]}
        return {
            "entries": [[name, kept.slot, kept.rows.stride] for name, kept in self._kept.items()],
            "files": {name: [list(pair) for pair in files] for name, files in spread.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Read the entries back, whatever number of processes wrote them; files of a later, unsaved past are removed.

        Raises:
            ValueError: If a file is missing or broken.
        """
        self._kept.clear()
        self._garbage.clear()
        written_in = state.get("files", {})
        for name, slot, stride in state["entries"]:
            parts = {file: self._read(file) for file, _ in written_in.get(name, [(name, None)])}
            files = [(file, len(part["features"])) for file, part in parts.items()]
            share = distributed.share(sum(count for _, count in files))
            tensors = {
                key: torch.cat([part[key] for part in parts.values()])[share.rows].clone()
                for key in ("features", "proprio", "actions")
            }
            self._kept[name] = _Kept(slot, Corrected(**tensors, stride=stride), share, files)
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
        needed = {self._path(file) for kept in self._kept.values() for file, _ in kept.files}
        for folder in (self.folder, *self.folder.glob("process_*")):
            remove_unfinished(folder)
            for path in folder.glob("*.safetensors"):
                if path not in needed and ENTRY_FILE.fullmatch(path.name):
                    path.unlink()

    def _write(self, name: str, entry: Corrected) -> None:
        tensors = {key: value.contiguous() for key, value in entry.tensors().items()}
        write_safetensors(self._path(name), tensors, {"stride": str(entry.stride)}, self.retry)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
