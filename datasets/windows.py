"""Trajectories cut into training samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.batch import Batch
from datasets.frames import FrameSource, ImageFrames
from datasets.trajectories import Trajectories
from datasets.units.folding import fold_actions
from datasets.units.normalizer import Normalizer


def as_is(batch: Batch) -> Batch:
    """The ``collate_fn`` of a DataLoader over windows, whose batches come collated."""
    return batch


class WindowDataset(Dataset[Batch]):
    """Samples: every run of F = num_windows + num_frames - 1 model frames, ``frameskip`` raw steps apart.

    A sample starts at every raw step from which F * frameskip raw actions fit. Samples are sorted by (trajectory,
    start). Everything but the frames is gathered for the whole batch at once from flat tables in memory.

    Args:
        trajectories: The recorded episodes.
        indices: Numbers of the trajectories to use, e.g. the training part.
        normalizer: z-scores of actions and proprio values.
        num_frames: Model frames of one window (num_hist + num_pred).
        num_windows: Consecutive windows in a sample, each one model frame later (the config's N).
        frameskip: Raw steps between model frames.
        frame_source: What stands for the frames; None reads the images of ``trajectories``.

    Attributes:
        trajectory: (samples,) int32 trajectory number of each sample.
        start: (samples,) int32 first raw step of each sample.
        start_method: How processes that read samples must be started; None: any way.

    Raises:
        ValueError: If a size is not positive, no trajectory is given, or none is long enough for one sample.
    """

    def __init__(
        self,
        trajectories: Trajectories,
        indices: Tensor | Sequence[int],
        normalizer: Normalizer,
        num_frames: int,
        num_windows: int = 1,
        frameskip: int = 5,
        frame_source: FrameSource | None = None,
    ) -> None:
        if min(num_frames, num_windows, frameskip) < 1:
            raise ValueError(f"windows: sizes must be positive, got {num_frames=}, {num_windows=}, {frameskip=}")
        self.num_frames = num_frames
        self.num_windows = num_windows
        self.frameskip = frameskip
        self.frame_source: FrameSource = frame_source or ImageFrames(trajectories)
        self.start_method = trajectories.start_method if isinstance(self.frame_source, ImageFrames) else None
        numbers = torch.as_tensor(indices, dtype=torch.int64).unique()  # sorted
        if not len(numbers):
            raise ValueError("windows: no trajectory was given; does split_ratio leave none for this part?")
        lengths = trajectories.lengths[numbers]
        self._gather_tables(trajectories, numbers, lengths, normalizer)
        self._index_samples(numbers, lengths)

    @property
    def sample_frames(self) -> int:
        """F, the model frames of a sample."""
        return self.num_windows + self.num_frames - 1

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: int) -> Batch:
        """One sample, as a batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int] | Tensor) -> Batch:
        """The samples with these numbers as one batch; a DataLoader calls this (with ``collate_fn=as_is``)."""
        sample = torch.as_tensor(indices, dtype=torch.int64)
        trajectory, start, slot = self.trajectory[sample].long(), self.start[sample].long(), self._slot[sample].long()
        span = torch.arange(self.sample_frames * self.frameskip)
        step = start[:, None] + span  # (B, F * frameskip), raw
        row = self._first_row[slot][:, None] + step
        frame_step, frame_row = step[:, :: self.frameskip], row[:, :: self.frameskip]
        frames = self.frame_source.read(trajectory[:, None].expand_as(frame_step), frame_step)
        return Batch(
            proprio=self._proprio_z[frame_row],
            actions=fold_actions(self._actions_z[row], self.frameskip),
            states=self._states[frame_row].double(),
            trajectory=trajectory,
            start=start,
            layouts={name: table[slot] for name, table in self._layouts.items()},
            **{self.frame_source.field: frames},
        )

    def _gather_tables(
        self, trajectories: Trajectories, numbers: Tensor, lengths: Tensor, normalizer: Normalizer
    ) -> None:
        """Concatenate the valid rows of the chosen trajectories; ``_first_row`` says where each begins."""
        pairs = list(zip(numbers.tolist(), lengths.tolist(), strict=True))

        def flat(rows_of: Callable[[int], Tensor]) -> Tensor:
            return torch.cat([rows_of(number)[:length] for number, length in pairs])

        self._first_row = lengths.cumsum(0) - lengths
        self._states = flat(lambda number: trajectories.states[number])
        self._actions_z = normalizer.actions_to_z(flat(lambda number: trajectories.actions[number]))
        self._proprio_z = normalizer.proprio_to_z(flat(trajectories.proprio))
        layouts: list[dict[str, Any]] = [trajectories.layout(number) for number, _ in pairs]
        self._layouts = {name: torch.stack([layout[name] for layout in layouts]) for name in layouts[0]}

    def _index_samples(self, numbers: Tensor, lengths: Tensor) -> None:
        """Lay out (trajectory, start) of all samples in compact arrays; ``_slot`` is the row among ``numbers``."""
        needed = self.sample_frames * self.frameskip
        counts = (lengths - needed + 1).clamp(min=0)
        if not counts.any():
            raise ValueError(
                f"windows: a sample of {self.num_windows} windows (N) of {self.num_frames} frames needs {needed} raw "
                f"steps at frameskip={self.frameskip}, but the longest trajectory has {int(lengths.max())}; "
                "lower N, num_hist or frameskip, or use longer trajectories"
            )
        slot = torch.arange(len(numbers)).repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        self._slot = slot.int()
        self.trajectory = numbers[slot].int()
        self.start = (torch.arange(len(slot)) - before[slot]).int()
