"""Processes that read samples, and disks that leave them waiting."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch.utils.data import Dataset

from datasets.batch import Batch
from datasets.windows import WindowDataset
from utils.retry import Retry

_DEATH = re.compile(r"DataLoader worker .*")  # torch has no class for it


class ReaderError(RuntimeError):
    """A process that reads samples died; the message says what to do."""


class RetriedSamples(Dataset[Batch]):
    """Samples whose reading is tried again while their disk is away.

    Args:
        samples: Those to read.
        retry: How long.
    """

    def __init__(self, samples: WindowDataset, retry: Retry) -> None:
        self.samples, self.retry, self.start_method = samples, retry, samples.start_method

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """See ``WindowDataset``."""
        return self.retry.read("samples", lambda: self.samples.__getitems__(indices))


def leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and a cluster's SIGTERM reach all processes of a job; the parent needs its readers until it has saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def one_line_if_a_reader_dies(run: Path) -> Iterator[None]:
    """Say what happened and how to go on where torch would end with a traceback.

    Raises:
        ReaderError: If a worker of a DataLoader died in the block.
    """
    try:
        yield
    except RuntimeError as error:
        death = _DEATH.search(str(error))
        if death is None:
            raise
        raise ReaderError(
            f"{death[0].strip().rstrip('.')} (too little memory? fewer env.num_workers need less); what was saved "
            f"before is whole; continue with: python train.py resume={run}"
            # its traceback keeps torch's iterator alive, which reports the death again whenever another process ends
        ) from error.with_traceback(None)
