"""When, and by which revision of this code, the results in a folder of stages were made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from utils.reading.json_file import read_json


@dataclass(frozen=True)
class Made:
    """How one stage's result came about: revision of the code, and when it began and ended (seconds since 1970)."""

    revision: str
    begin: float
    end: float

    def as_json(self) -> dict[str, str | float]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Provenance:
    """How the results of all stages came about.

    Attributes:
        revisions: of the code, each once. date: of the last result, UTC. seconds: in which at least one stage ran.
    """

    revisions: Sequence[str]
    date: str
    seconds: float

    @classmethod
    def read(cls, folder: Path, names: Iterable[str]) -> Provenance:
        """Of the stages ``names``, whose results ``run_jobs`` kept in ``folder``."""
        kept = [read_json(folder / f"{name}.json", dict).get("made") for name in names]
        stages = sorted((Made(**made) for made in kept if made), key=lambda made: made.begin)
        revisions = {made.revision for made in stages} | ({"unknown"} if None in kept else set())
        busy, until = 0.0, 0.0
        for made in stages:
            busy += max(0.0, made.end - max(made.begin, until))
            until = max(until, made.end)
        date = datetime.fromtimestamp(until, UTC).date().isoformat() if stages else "unknown"
        return cls(sorted(revisions), date, busy)

    def require_one_revision(self, folder: Path) -> str:
        """The revision of all results.

        Raises:
            ValueError: If there are several, or one with changed files: what is published must name its code.
        """
        (first, *others) = self.revisions
        if others or first == "unknown" or first.endswith("-dirty"):
            raise ValueError(
                f"{folder}: its stages were run at revision {' and '.join(self.revisions)}; published numbers must "
                "come from one committed revision: delete the folder, commit what has changed, and run again"
            )
        return first


def revision() -> str:
    """Of this code, by git; "-dirty" at its end where files were changed since; "unknown" outside a checkout."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
