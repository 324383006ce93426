"""Batches of an epoch on the device that trains, and how long the training waited for them."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.signal_handling import _remove_worker_pids

from datasets.batch import Batch
from datasets.readers import ReaderError, leave_signals_to_the_parent
from datasets.sampler import ResumableSampler
from datasets.windows import as_is
from utils import distributed

log = logging.getLogger(__name__)

MOST_WORKERS = 8
"""Eight processes read 1000 samples of PushT a second, three times what 25 steps of batch 8 a second take."""
PREFETCHED = 4  # batches per worker that wait to be used
BEARABLE_WAIT = 0.05
"""Part of the time that a training may wait for data before it says so."""
SHORTEST_JUDGED = 20.0  # seconds of an epoch from which on such a statement means anything


def sensible_workers(device: torch.device) -> int:
    """Processes that read where the user does not say how many.

    None beside a training on the CPU: they would take the cores that it computes on, and reading is a small part of
    it (docs/performance.md). A GPU leaves all cores but one.
    """
    if device.type == "cpu":
        return 0
    return min(distributed.own_cores() - 1, MOST_WORKERS)


class BatchLoader:
    """Reads batches, in worker processes if there are any, and brings them to a device.

    Which samples a batch holds follows from the sampler alone, whatever the number of workers. Workers live as long
    as this object: to start one anew for every epoch takes seconds.

    Args:
        data: The samples.
        sampler: Their order.
        device: Where the training computes.
        num_workers: Processes that read; 0: the training itself does; None: see ``sensible_workers``.
        seed: Of what the workers might draw.

    Attributes:
        num_workers: Processes that read.
    """

    def __init__(
        self,
        data: Dataset[Batch],
        sampler: ResumableSampler,
        device: torch.device,
        num_workers: int | None = 0,
        seed: int = 0,
    ) -> None:
        self.data, self.sampler, self.device, self.seed = data, sampler, device, seed
        self.num_workers = sensible_workers(device) if num_workers is None else num_workers
        self._loader: DataLoader[Batch] | None = None
        self._asked = 0.0  # when the current batch was asked for
        self._waited = 0.0  # seconds until it came
        self._since = 0.0  # when the first batch of the epoch came; starting workers is no sign of slow reading
        self._total = 0.0  # seconds waited for all batches but the first

    def epoch(self, number: int, position: int, last: int) -> Iterator[Batch]:
        """Batches ``position`` to ``last`` - 1 of an epoch, in an order that depends on seed and epoch only.

        Raises:
            ReaderError: If a worker's end broke the connection to it.
        """
        self.sampler.set_epoch(number, position)
        source = itertools.islice(iter(self._made()), last - position)
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._since, self._total = 0.0, 0.0
        while True:
            self._asked = time.perf_counter()
            try:
                batch = next(source, None)
            except (ConnectionError, EOFError) as error:  # comes before torch's own message, or in its place
                raise ReaderError("DataLoader worker ended while a batch was fetched from it") from error
            if batch is None:
                return
            here = self._brought(batch, stream)
            now = time.perf_counter()
            self._waited = now - self._asked
            if self._since:
                self._total += self._waited
            else:
                self._since = now
            yield here

    def _made(self) -> DataLoader[Batch]:
        if self._loader is None:
            workers = self.num_workers
            self._loader = DataLoader(
                self.data,
                batch_sampler=self.sampler,
                collate_fn=as_is,  # type: ignore[arg-type]  # __getitems__ collates
                num_workers=workers,
                multiprocessing_context=getattr(self.data, "start_method", None) if workers else None,
                prefetch_factor=PREFETCHED if workers else None,
                persistent_workers=workers > 0,
                worker_init_fn=leave_signals_to_the_parent,
                pin_memory=self.device.type == "cuda",
                # it draws a number when it starts: from the global generator, a resumed run would draw once more
                generator=torch.Generator().manual_seed(self.seed),
            )
        return self._loader

    def _brought(self, batch: Batch, stream: torch.cuda.Stream | None) -> Batch:
        """The batch on the device; a copy to a GPU goes on a stream of its own, beside the step before it."""
        if stream is None:
            return batch.to(self.device)
        with torch.cuda.stream(stream):
            here = batch.to(self.device, non_blocking=True)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(stream)
        here.record_stream(current)
        return here

    def wait_share(self) -> float:
        """Share of the time since the current batch was asked for that was spent on waiting for it, in [0, 1]."""
        return self._waited / max(time.perf_counter() - self._asked, self._waited, 1e-9)

    def epoch_wait(self) -> float:
        """Share of the epoch so far that was spent on waiting, without its first batch; warns if that is much."""
        seconds = time.perf_counter() - self._since
        waited = self._total / seconds if self._since else 0.0
        if waited > BEARABLE_WAIT and seconds > SHORTEST_JUDGED:
            log.warning(
                "%.0f %% of this epoch's time went into waiting for data; set env.num_workers (now %d) to more, or "
                "keep the encoded frames: training.latent_cache=memory or disk",
                100 * waited,
                self.num_workers,
            )
        return waited

    def close(self) -> None:
        """End the workers."""
        iterator: Any = getattr(self._loader, "_iterator", None)
        workers = getattr(iterator, "_workers", [])
        if any(not worker.is_alive() for worker in workers):
            # a killed worker may hold a lock that torch's own ending would wait for, for ever
            iterator._shutdown = True
            _remove_worker_pids(id(iterator))
            for worker in workers:
                worker.kill()
        self._loader = None
