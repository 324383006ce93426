"""Stopping politely: a first Ctrl-C or SIGTERM lets the current step finish."""

from __future__ import annotations

import logging
import signal
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)


class StopRequested(SystemExit):
    """The work stopped on a signal after saving; carries the shell's exit code for it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class StopSignals:
    """While active, SIGINT and SIGTERM only set a flag; a second one acts as usual.

    Outside the main thread, where Python cannot install handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._handle)
            except ValueError:
                return self
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._previous[number])
        log.warning("%s: stopping as soon as everything is saved; once more stops at once", signal.Signals(number).name)

    def raise_if_received(self) -> None:
        """Call where everything is saved.

        Raises:
            StopRequested: If a signal came in.
        """
        if self.received is not None:
            raise StopRequested(self.received)
