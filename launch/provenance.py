"""When, and by which revision of this code, the results in a folder of stages were made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from utils.reading.json_file import read_json
from utils.reading.opening import FileError
from utils.revision import is_committed


@dataclass(frozen=True)
class Made:
    """How one stage's result came about: revision of the code, and when it began and ended (seconds since 1970)."""

    revision: str
    begin: float
    end: float

    def as_json(self) -> dict[str, str | float]:
        """Give it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Provenance:
    """How the results of all stages came about.

    Attributes:
        revisions: Of the code, each once.
        date: Of the last result, UTC.
        seconds: In which at least one stage ran.
    """

    revisions: Sequence[str]
    date: str
    seconds: float

    @classmethod
    def read(cls, folder: Path, names: Iterable[str]) -> Provenance:
        """Read it of the stages ``names``, whose results ``run_jobs`` kept in ``folder``.

        Raises:
            FileError: If a result is broken.
        """
        kept = [_made(folder / f"{name}.json") for name in names]
        stages = sorted((made for made in kept if made is not None), key=lambda made: made.begin)
        revisions = {made.revision for made in stages} | ({"unknown"} if None in kept else set())
        busy, until = 0.0, 0.0
        for made in stages:
            busy += max(0.0, made.end - max(made.begin, until))
            until = max(until, made.end)
        date = datetime.fromtimestamp(until, UTC).date().isoformat() if stages else "unknown"
        return cls(sorted(revisions), date, busy)

    def require_committed(self, folder: Path) -> None:
        """Refuse results of changed files; those of several revisions do, since every one is named.

        Raises:
            ValueError: Naming the revisions.
        """
        if not all(map(is_committed, self.revisions)):
            raise ValueError(
                f"{folder}: its stages were run at revision {' and '.join(self.revisions)}; published numbers must "
                "come from committed revisions: commit what has changed, delete the others' results, and run again"
            )


def _made(path: Path) -> Made | None:
    """How a result came about; None if an earlier version made it, which did not say."""
    said = read_json(path, dict).get("made")
    if said is None:
        return None
    fits = isinstance(said, dict) and said.keys() == {"revision", "begin", "end"} and isinstance(said["revision"], str)
    if not fits or not all(isinstance(said[key], int | float) for key in ("begin", "end")):
        raise FileError(f"{path} does not say when and by which code it was made; delete it, and run again")
    return Made(**said)
