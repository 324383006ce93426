"""Loggers: numbers always go into a JSON-lines file; what shows them elsewhere is built upon it."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils import distributed
from utils.files import own_file
from utils.reading.json_file import RESULTS_BYTES, parse_json
from utils.reading.opening import open_regular
from utils.schema import Component

log = logging.getLogger(__name__)


class JsonLinesLogger:
    """Writes one JSON object a line; a resumed run continues the file without gap or repetition.

    A disk that takes no line does not stop the work: the lines wait in memory until ``position`` is asked for.

    Args:
        folder: Of the run.
        filename: Of the log in it.

    Raises:
        ValueError: If the file would lie elsewhere: a run folder that is resumed may come from somebody else.
    """

    def __init__(self, folder: str | Path, filename: str = "logs.json") -> None:
        if not filename or Path(filename).name != filename or filename == "..":
            raise ValueError(f"logger.filename={filename} must be a plain name, of a file in the run's folder")
        self.path = Path(folder) / filename
        self.path.parent.mkdir(parents=True, exist_ok=True)
        own_file(self.path)
        self._synced = self._size()  # bytes that are on the disk for good
        self._since = bytearray()  # all lines after these; in the file, too, unless it failed
        self._behind = False

    def describe(self, config: Mapping[str, Any]) -> None:
        """Take the settings of the run, for those loggers that show them; called before the first line."""

    def log(self, values: dict[str, Any]) -> None:
        """Append one object and hand it to the operating system at once. NaN and infinity become null."""
        line = (json.dumps(_finite(values)) + "\n").encode()
        expected = self._synced + len(self._since)
        self._since += line
        try:
            if self._behind or self._size() != expected:
                self._write_since()
            else:
                with self.path.open("ab") as file:
                    file.write(line)
        except OSError as error:
            if not self._behind:
                log.warning("%s takes no lines for now (%s); they wait in memory", self.path, error.strerror)
            self._behind = True

    def position(self) -> int:
        """Put all lines on the disk and return their number of bytes, which a saved state remembers.

        Raises:
            OSError: If the disk does not take them.
        """
        if self._behind or self._size() != self._synced + len(self._since):
            self._write_since()
        if self._since:
            self._behind = True  # what a failing fsync has lost, a second one does not report
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            self._behind = False
        self._synced += len(self._since)
        self._since.clear()
        return self._synced

    def rewind(self, position: int) -> None:
        """Forget what was written after a saved state; a file that is shorter than that is left alone."""
        if self._size() > position:
            os.truncate(self.path, position)
        elif self._size() < position:
            log.warning("%s is shorter than it was: lines before the saved state are lost", self.path)
        self._synced, self._behind = self._size(), False
        self._since.clear()

    def close(self) -> None:
        """Do nothing: no file is held open."""

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _write_since(self) -> None:
        """Write all lines since the last ``position`` again, over whatever became of them."""
        if self._size() < self._synced:
            raise OSError(errno.ESTALE, "it lost lines that were written before", str(self.path))
        with self.path.open("r+b" if self._synced else "wb") as file:
            file.truncate(self._synced)
            file.seek(self._synced)
            file.write(self._since)
        self._behind = False


def run_logger(logger: Component[JsonLinesLogger], settings: Mapping[str, Any], folder: Path) -> JsonLinesLogger:
    """Build the logger of a run, which stays silent in all processes but the main one.

    Args:
        logger: Which one.
        settings: All settings of the run, as they are recorded.
        folder: Of the run.
    """
    if not distributed.is_main():
        return SilentLogger()
    built = logger.build(folder=folder)
    built.describe(settings)
    return built


class SilentLogger(JsonLinesLogger):
    """Writes nothing, in processes beside the one that logs."""

    def __init__(self) -> None:
        """Set up without a folder."""

    def log(self, values: dict[str, Any]) -> None:
        """Write nothing."""

    def position(self) -> int:
        """Return 0: nothing is written."""
        return 0

    def rewind(self, position: int) -> None:
        """Forget nothing."""


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read all objects of a log; a last line that a kill cut off is left out.

    Raises:
        FileError: If another line is broken.
    """
    with open_regular(path) as file:
        lines = [(number, line) for number, line in enumerate(file, 1) if line.endswith(b"\n")]
    return [
        parse_json(line, dict, f"{path}, line {number},", "delete that line", RESULTS_BYTES) for number, line in lines
    ]


def last_value(path: Path, name: str) -> float | None:
    """Return the last number that a log gives for ``name``; None if it has none."""
    found = [line[name] for line in read_json_lines(path) if line.get(name) is not None]
    return found[-1] if found else None


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
