"""A place for one thing, the newest, between a thread that brings it and one that takes it."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """Where a camera's thread puts images and a control loop takes the newest; older ones are dropped.

    Attributes:
        dropped: Things that were replaced before anybody took them.
    """

    def __init__(self) -> None:
        self._here = threading.Condition()
        self._held: list[T] = []
        self.dropped = 0

    def put(self, thing: T) -> None:
        """Put it in the place of what is there."""
        with self._here:
            self.dropped += len(self._held)
            self._held = [thing]
            self._here.notify()

    def take(self, timeout: float | None = None) -> T:
        """Take what is there, which nobody else gets then; wait for it if need be.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: If nothing came.
        """
        with self._here:
            if not self._here.wait_for(lambda: self._held, timeout):
                raise TimeoutError(f"nothing came within {timeout:g} s")
            return self._held.pop()
