"""The files of a preview: pictures, a video, everything as JSON, and a page that shows them without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tqdm import tqdm

from datasets.previewing.findings import Finding
from datasets.previewing.frames import IN_VIDEO, ON_SHEET, draw_sheet, draw_video
from datasets.previewing.replay import Replay
from datasets.previewing.survey import Survey
from datasets.trajectories import Trajectories
from utils.files import write_text
from utils.pages import write_numbers

PAGE, NUMBERS, SHEET, VIDEO, LENGTHS = "preview.html", "preview.json", "frames.png", "episodes.mp4", "lengths.png"
MOST_DRAWN = 24  # columns of each table
MOST_LINES = 60  # findings that are shown; the JSON file has all
TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class Preview:
    """All that a preview shows.

    Attributes:
        facts: What was looked at: name -> value, in plain data.
        survey: Of the tables.
        findings: What is suspicious.
        replay: Of single steps.
        shown: Numbers of the episodes that could be drawn.
    """

    facts: Mapping[str, Any]
    survey: Survey
    findings: Sequence[Finding]
    replay: Replay
    shown: Sequence[int]

    def lines(self) -> list[str]:
        """What is suspicious, for people."""
        lines = [finding.line(self.survey.named) for finding in self.findings]
        rest = len(lines) - MOST_LINES
        return lines if rest <= 0 else [*lines[:MOST_LINES], f"and {rest} more, see {NUMBERS}"]


def write_preview(folder: Path, data: Trajectories, preview: Preview, window: int) -> Path:
    """Write all files into a folder, the page last; returns its path."""
    from datasets.previewing.figures import draw_column, draw_lengths  # matplotlib takes a second

    pictures: list[tuple[str, Callable[[Path], object]]] = [
        (LENGTHS, lambda path: draw_lengths(data.lengths.tolist(), window, path))
    ]
    drawn = [column for column in preview.survey.columns if column.index < MOST_DRAWN and column.rows]
    for column in drawn:
        pictures.append((_picture(column.name), lambda path, column=column: draw_column(column, path)))  # type: ignore[misc]
    if preview.shown:
        named = preview.survey.named
        notes = {number: finding.kind for finding in preview.findings for number in finding.episodes}
        shown = sorted(preview.shown, key=lambda number: number not in notes)[:ON_SHEET]
        pictures.append((SHEET, lambda path: draw_sheet(data, sorted(shown), named, notes, path)))
        pictures.append((VIDEO, lambda path: draw_video(data, preview.shown[:IN_VIDEO], named, path)))
    for name, draw in tqdm(pictures, desc="pictures", leave=False):
        draw(folder / name)
    write_numbers(folder / NUMBERS, as_json(preview))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    text = environment.get_template("preview.html.jinja").render(
        preview=preview,
        tables={table: preview.survey.of(table) for table in ("actions", "proprio", "states")},
        picture={column.name: _picture(column.name) for column in drawn},
        numbers=NUMBERS, lengths=LENGTHS, sheet=SHEET, video=VIDEO,
    )  # fmt: skip
    write_text(folder / PAGE, text)
    return folder / PAGE


def as_json(preview: Preview) -> dict[str, Any]:
    """Everything in plain data."""
    return {
        "facts": dict(preview.facts),
        "suspicious": [{**asdict(finding), "line": finding.line(preview.survey.named)} for finding in preview.findings],
        "columns": [asdict(column) for column in preview.survey.columns],
        "replay": {"note": preview.replay.note, "errors": {str(n): e for n, e in preview.replay.errors.items()}},
        "episodes": [
            {"number": each.number, "part": preview.survey.parts.get(each.number), "length": each.length}
            for each in preview.survey.episodes
        ],
    }


def _picture(name: str) -> str:
    return f"{name.replace('[', '_').rstrip(']')}.png"
