"""Stopping politely: a first Ctrl-C or SIGTERM lets the current step finish."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, Self

log = logging.getLogger(__name__)


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
JOB_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What SLURM sends before it takes a job's nodes away: SIGTERM, or what ``sbatch --signal`` names."""


def in_slurm_job() -> bool:
    """Whether this process belongs to a SLURM job, of any kind."""
    return "SLURM_JOB_ID" in os.environ


class StopRequested(SystemExit):
    """The work stopped on a signal after saving; carries the shell's exit code for it.

    Attributes:
        number: Of the signal.
        attempts_in_vain: Attempts at this work in a row, with this one, that were stopped before they saved anything.
    """

    def __init__(self, number: int, attempts_in_vain: int = 0) -> None:
        super().__init__(128 + number)
        self.number, self.attempts_in_vain = number, attempts_in_vain


class StopSignals:
    """Turns signals that ask to stop into a flag while it is active; a second one acts as usual.

    They are SIGINT and SIGTERM, in a SLURM job SIGUSR1 and SIGUSR2 too. There, all but SIGINT come more than once
    (SLURM tells every process, and a process those that it started): once one is received, more change nothing.
    Outside the main thread, where Python cannot install handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in stop_signals():
            try:
                self._previous[number] = signal.signal(number, self._handle)
            except ValueError:
                return self
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            ignored = number in JOB_SIGNALS and self._is_slurms(self.received)  # what comes again would not let us end
            signal.signal(number, signal.SIG_IGN if ignored else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_slurms(number):
            if self.received is not None:
                return
        else:
            signal.signal(number, self._previous[number])
        self.received = number
        log.warning("%s: stopping as soon as everything is saved; once more stops at once", signal.Signals(number).name)

    @staticmethod
    def _is_slurms(number: int | None) -> bool:
        return number in JOB_SIGNALS and in_slurm_job()

    def raise_if_received(self) -> None:
        """Stop if a signal came in; to be called where everything is saved.

        Raises:
            StopRequested: If a signal came in.
        """
        if self.received is not None:
            raise StopRequested(self.received)


def stop_signals() -> Sequence[signal.Signals]:
    """Return the signals that ask a process to stop here."""
    return tuple(dict.fromkeys((*STOP_SIGNALS, *JOB_SIGNALS))) if in_slurm_job() else STOP_SIGNALS


@contextlib.contextmanager
def stopping_at_once(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """Raise StopRequested on a signal, at once: for work of which nothing has to be saved first."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise StopRequested(number)

    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
