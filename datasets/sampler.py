"""Shuffled batches that can be resumed anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


class ResumableSampler(Sampler[list[int]]):
    """Batches of sample numbers as a pure function of (seed, epoch, position); a ``batch_sampler`` of a DataLoader.

    Each epoch visits the samples in an order of its own. Nothing advances by itself: call ``set_epoch`` before each.

    Args:
        num_samples: Size of the data set.
        batch_size: Samples in a batch.
        seed: Of the order.
        drop_last: Leave out the samples that do not fill a last batch.
        rows: Which samples of every batch are wanted here, e.g. those of one of several processes; None: all.

    Raises:
        ValueError: If no batch can be formed.
    """

    def __init__(
        self, num_samples: int, batch_size: int, seed: int, drop_last: bool = True, rows: slice | None = None
    ) -> None:
        if batch_size < 1 or num_samples < (batch_size if drop_last else 1):
            raise ValueError(
                f"batch_size must be in [1, {num_samples}], the number of samples, got {batch_size}; "
                "make it smaller or use more data"
            )
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.rows = slice(None) if rows is None else rows
        self.epoch = 0
        self.start_batch = 0

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch, wherever the current one starts."""
        full, rest = divmod(self.num_samples, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch that the next iteration runs through, from its batch ``start_batch`` on.

        Raises:
            ValueError: If the epoch is negative or has no such batch (its end is allowed: nothing is left then).
        """
        if epoch < 0 or not 0 <= start_batch <= self.batches_per_epoch:
            raise ValueError(
                f"expected epoch >= 0 and start_batch in [0, {self.batches_per_epoch}], got {epoch=}, {start_batch=}"
            )
        self.epoch, self.start_batch = epoch, start_batch

    def __len__(self) -> int:
        """Batches that the next iteration yields."""
        return self.batches_per_epoch - self.start_batch

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        for batch in range(self.start_batch, self.batches_per_epoch):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size][self.rows].tolist()

    def _order(self) -> Tensor:
        # Seeds that differ in one bit, as seed + epoch would, must not give related orders, nor (1, 0) equal (0, 1).
        mixed = int(np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)[0])
        return torch.randperm(self.num_samples, generator=torch.Generator().manual_seed(mixed & (2**63 - 1)))
