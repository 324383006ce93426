"""Trying again while a disk is full or away; after that, one line that says so."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from utils.machine import as_duration, as_size

log = logging.getLogger(__name__)

Result = TypeVar("Result")

FULL = {errno.ENOSPC, errno.EDQUOT}
AWAY = {
    errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EAGAIN,
    errno.EBUSY, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNRESET,
    *(getattr(errno, name) for name in ("EREMOTEIO", "ENOLINK") if hasattr(errno, name)),
}  # fmt: skip
"""What a network file system says while its server or the network is away; ENOENT where the mount itself is gone."""


class DiskError(OSError):
    """A disk stayed full or away for as long as the retry lasted; the message is one line."""


class Retry:
    """Try again, for a while, what fails because a disk is full or away.

    Args:
        minutes: How long; 0 gives up at the first failure. The config's ``disk_patience_minutes``.
        anchor: A file that has been in the folder from the beginning. While it is missing, nothing is written: the
            empty mount point of a lost mount would take the files and hide them when the mount is back.
        advice: What to do after giving up, e.g. how to continue.
        pause: Seconds between two attempts.

    Raises:
        ValueError: If ``minutes`` is negative.
    """

    def __init__(self, minutes: float = 0.0, anchor: Path | None = None, advice: str = "", pause: float = 5.0) -> None:
        if minutes < 0:
            raise ValueError(f"disk_patience_minutes must be at least 0, got {minutes}")
        self.minutes, self.anchor, self.advice, self.pause = minutes, anchor, advice, pause

    def write(self, what: str, attempt: Callable[[], Result], needed: int = 0) -> Result:
        """Return the result of ``attempt``, which writes ``what`` (about ``needed`` bytes) whole or not at all.

        Raises:
            DiskError: If the disk is still full or away after the time to wait.
            OSError: If it fails for another reason.
        """

        def anchored() -> Result:
            if self.anchor is not None and not self.anchor.exists():
                raise FileNotFoundError(errno.ENOENT, "the folder is gone (a lost mount?)", str(self.anchor.parent))
            return attempt()

        return self._repeat(f"{what} could not be written", anchored, FULL | AWAY, needed)

    def read(self, what: str, attempt: Callable[[], Result]) -> Result:
        """Return the result of ``attempt``, which reads ``what``; its error may be caused by an ``OSError``.

        Raises:
            DiskError: If the disk is still away after the time to wait.
            OSError, ValueError: If it fails for another reason.
        """
        return self._repeat(f"{what} could not be read", attempt, AWAY, 0)

    def _repeat(self, failed: str, attempt: Callable[[], Result], passing: set[int], needed: int) -> Result:
        began: float | None = None
        said = 0.0
        while True:
            try:
                result = attempt()
            except (OSError, ValueError) as error:
                cause = _system_error(error, passing)
                if cause is None:
                    raise
                now = time.monotonic()
                began = now if began is None else began
                problem = f"{failed}: {_described(cause, needed)}"
                if now - began + self.pause > 60 * self.minutes:
                    waited = f"; waited {as_duration(round(now - began))} (disk_patience_minutes={self.minutes:g})"
                    advice = f". {self.advice}" if self.advice else ""
                    raise DiskError(f"{problem}{waited}{advice}") from error
                if now - said > 60 or now == began:
                    log.warning("%s; trying again for up to %g minutes", problem, self.minutes)
                    said = now
                time.sleep(self.pause)
            else:
                if began is not None:
                    log.warning("the disk is back after %s", as_duration(round(time.monotonic() - began)))
                return result


def _system_error(error: BaseException | None, passing: set[int]) -> OSError | None:
    """Return the first error in the chain of causes that may pass."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in passing:
            return error
        error = error.__cause__
    return None


def _described(error: OSError, needed: int) -> str:
    where = f"{error.filename}: " if error.filename else ""
    text = f"{where}{error.strerror}"
    if error.errno not in FULL:
        return text
    details = [f"about {as_size(needed)} needed"] if needed else []
    with contextlib.suppress(OSError, TypeError):  # it may have no file name
        details.append(f"{as_size(shutil.disk_usage(Path(error.filename).parent).free)} free")
    return f"{text} ({', '.join(details)})" if details else text
