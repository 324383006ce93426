"""CUDA graphs: work on the same tensors again and again is recorded once and replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

log = logging.getLogger(__name__)

WARM_UP = 1  # calls before recording: libraries choose kernels, compilers compile, optimisers make their state
WORTH = 12  # calls that recording pays off for


class Captured:
    """Calls ``work``; once it is warm, replays what the device did instead, as one CUDA graph.

    A small model's gradient step is hundreds of kernels that take longer to launch than to run; a graph is one launch.
    Every call does the same as ``work()`` would, in the same memory.

    Args:
        work: Reads and writes tensors in place, reads no number from the device, and has no other effect: what it does
            on the host happens only while it is warming up.
        device: Where.
        enabled: Whether to record, which takes a CUDA device.
        calls: How many are expected; few are not worth recording.

    Attributes:
        replays: Whether the last call was a replay.
    """

    def __init__(self, work: Callable[[], None], device: torch.device, enabled: bool, calls: int) -> None:
        self._work, self._device = work, device
        self._records = enabled and calls >= WORTH
        self._warm = 0
        self._aside = torch.cuda.Stream(device) if self._records else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self.replays = False

    def __call__(self) -> None:
        """Do the work once."""
        if self._records and self._graph is None and self._warm >= WARM_UP:
            self._record()
        self.replays = self._graph is not None
        if self._graph is not None:
            self._graph.replay()
        elif self._records:
            self._run_aside()
        else:
            self._work()

    def _run_aside(self) -> None:
        """Run the work on a stream of its own, as recording will, so that the default one owns no lasting memory."""
        self._warm += 1
        here, aside = torch.cuda.current_stream(self._device), self._aside
        assert aside is not None, "made if there is something to record"
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self._work()
        here.wait_stream(aside)

    def _record(self) -> None:
        """Recording runs nothing. Should a library not allow it, the work goes on unrecorded."""
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads may go on using the GPU: a loader pins memory meanwhile
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._work()
        except RuntimeError as error:
            log.warning(
                "a gradient step could not be recorded as a CUDA graph, planning goes on without (%s); "
                "speed.capture=false avoids the attempt",
                str(error).splitlines()[0],
            )
            self._records = False
            return
        self._graph = graph
