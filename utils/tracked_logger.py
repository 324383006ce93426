"""Loggers that show a run elsewhere, too: what they have in common."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.loggers import JsonLinesLogger, read_json_lines

log = logging.getLogger(__name__)

FINAL = "final_eval/"
MEDIA = {
    "val": ("open_loop", "open_loop/epoch_{epoch}.png"),
    "plan": ("episodes", "iteration_{iteration}.png"),
    "plan/final": ("videos", "output_final_*.mp4"),
}
"""Pictures and videos that belong to a line of each group: their name, and their path with the line's numbers."""


@dataclass(frozen=True)
class Shown:
    """A line of the log as it is shown.

    Attributes:
        step_name: Train/step or plan/iteration.
        step: Its value.
        numbers: By name, all finite.
        media: Pictures and videos, by name.
    """

    step_name: str
    step: int
    numbers: dict[str, float]
    media: dict[str, list[Path]]


def shown(line: Mapping[str, Any], folder: Path) -> Shown:
    """Name what a line of a run's ``logs.json`` says: ``train/``, ``val/``, ``plan/`` and ``plan/final/``."""
    if any(key.startswith(FINAL) for key in line):
        group, step_name, step = "plan/final", "plan/iteration", line.get(f"{FINAL}iterations", 0)
    elif "iteration" in line:
        group, step_name, step = "plan", "plan/iteration", line["iteration"]
    else:
        group, step_name, step = "train" if "loss" in line else "val", "train/step", line.get("step", 0)
    numbers = {
        _name(group, key): value
        for key, value in line.items()
        if isinstance(value, int | float) and math.isfinite(value) and _name(group, key) != step_name
    }
    media = {}
    if group in MEDIA:
        name, pattern = MEDIA[group]
        media = {f"{group}/{name}": sorted(folder.glob(pattern.format_map({"epoch": "", "iteration": "", **line})))}
    return Shown(step_name, int(step), numbers, {name: paths for name, paths in media.items() if paths})


def _name(group: str, key: str) -> str:
    if group == "val" and key in ("step", "epoch"):
        return f"train/{key}"
    return f"{group}/{key.removeprefix(FINAL).removeprefix('val_' if group == 'val' else '')}"


class TrackedLogger(JsonLinesLogger, ABC):
    """Shows the lines of the log in a tracker as well; whatever happens to that one, the run goes on.

    Line n of the file is shown once, as the n-th, however often the run is killed and resumed: what a resumed run
    computes again is not shown again if the tracker has it, and what the tracker lost is shown from the file.
    """

    tracker = "the tracker"

    def __init__(self, folder: str | Path, filename: str = "logs.json") -> None:
        super().__init__(folder, filename)
        self.folder = Path(folder)
        self.config: Mapping[str, Any] = {}
        self._number: int | None = None  # of the next line; None before the first
        self._first = 0  # of those still to be shown
        self._works = True

    def describe(self, config: Mapping[str, Any]) -> None:
        """See the base class."""
        self.config = config

    def log(self, values: dict[str, Any]) -> None:
        """See the base class."""
        if self._number is None:
            self._begin()
        number = self._number or 0
        super().log(values)
        self._number = number + 1
        if number >= self._first:
            self._try(lambda: self.show(number, shown(values, self.folder)))

    def rewind(self, position: int) -> None:
        """See the base class."""
        super().rewind(position)
        self._begin()

    def position(self) -> int:
        """See the base class."""
        position = super().position()
        self._try(self.flush)
        return position

    def close(self) -> None:
        """Finish the tracker's run."""
        if self._number is not None:
            self._try(self.finish)

    @abstractmethod
    def open(self, lines: Sequence[Mapping[str, Any]]) -> int:
        """Begin, or continue after these lines of the log; return the number of the first that is not shown yet."""

    @abstractmethod
    def show(self, number: int, line: Shown) -> None:
        """Show line ``number``."""

    def flush(self) -> None:
        """Put what was shown where a kill of this process does not lose it."""

    @abstractmethod
    def finish(self) -> None:
        """End the tracker's run: nothing more comes."""

    def _begin(self) -> None:
        self._number = self.path.read_bytes().count(b"\n") if self.path.exists() else 0
        self._try(self._continue)

    def _continue(self) -> None:
        lines = read_json_lines(self.path) if self._number else []
        self._first = self.open(lines)
        for number, line in enumerate(lines[self._first :], self._first):
            self.show(number, shown(line, self.folder))

    def _try(self, action: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            action()
        except Exception as error:  # networks, disks, versions; none of them is worth a training
            self._works = False
            reason = (str(error).splitlines() or ["no reason given"])[0]
            log.warning(
                "%s does not work (%s: %s): the run goes on without it; %s has all numbers, and when the run is "
                "resumed they are shown from there",
                self.tracker, type(error).__name__, reason, self.path,
            )  # fmt: skip
