"""Gather a sweep into one table with intervals: ``python -m launch.sweep_table <folder>``.

Beside the table on standard output it writes ``collected.csv``, ``collected.md`` and ``collected.png`` into the folder.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from launch.sweep_results import METRICS, Row, Run, make_rows, number_text, read_runs
from utils.files import atomic_path, write_text
from utils.pages import markdown_table
from utils.printable import exit_with, write_printable

NOTE = """\
In brackets 95 % intervals. A rate: Wilson's over the distinct episodes, or, where several models met the same episodes,
a bootstrap over both. Other numbers, and rates of models that met different episodes: Student's over the runs of a row;
none for one run."""
REPEATED = """\
Some episodes were met more than once by the same model: each counts once in the rates and their intervals, with the
mean of what became of it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table of a folder; what goes wrong is one line on standard error and exit code 1."""
    given = _parser().parse_args(arguments)
    try:
        runs = read_runs(given.folder)
        rows = make_rows(runs, given.over, given.metric)
        text = as_markdown(rows)
        write_text(given.folder / "collected.csv", as_csv(rows))
        write_text(given.folder / "collected.md", text)
        if any(row.estimates for row in rows):
            with atomic_path(given.folder / "collected.png") as temporary:
                draw(rows).savefig(temporary, format="png", dpi=130)
    except (ValueError, OSError) as error:
        exit_with(f"error: {error}")
    write_printable(text, sys.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launch.sweep_table", description=__doc__)
    parser.add_argument("folder", type=Path, help="of a sweep, or any that has run folders below it")
    parser.add_argument("--over", nargs="*", metavar="KEY", help="settings to average over (default: all named seed)")
    parser.add_argument("--metric", nargs="+", help=f"numbers to show (default: what there is of {', '.join(METRICS)})")
    return parser


def as_markdown(rows: Sequence[Row]) -> str:
    """Write the table, its note, and every run that is not in it with the reason."""
    metrics = _metrics(rows)
    counted = ["episodes"] if any(row.episodes[1] for row in rows) else []
    head = [*rows[0].settings, "runs", *counted, *metrics]
    lines = []
    for row in rows:
        cells = [str(row.estimates.get(name, "")) for name in metrics]
        count = str(row.finished) if row.finished == len(row.runs) else f"{row.finished} of {len(row.runs)}"
        lines.append([*row.settings.values(), count, *(_distinct(row) for _ in counted), *cells])
    repeated = ["", REPEATED] if any(row.episodes[1] < row.episodes[2] for row in rows) else []
    missing = [_missing(run) for row in rows for run in row.runs if not run.is_finished]
    left_out = ["", "Not in these numbers:", "", *missing] if missing else []
    return "\n".join([markdown_table(head, lines), "", NOTE, *repeated, *left_out, ""])


def _distinct(row: Row) -> str:
    distinct, by_model, met = row.episodes
    if by_model < met:
        return f"{distinct} distinct of {met}"
    return str(met) if distinct == met else f"{distinct}, met by several models"


def _missing(run: Run) -> str:
    why = f": {run.record['error']}" if "error" in run.record else ""
    return f"- {run.folder.name}: {run.record['status']}{why}"


def as_csv(rows: Sequence[Row]) -> str:
    """Write the table for programs: a column for each number and each end of its interval."""
    ends = [(name, end) for name in _metrics(rows) for end in ("value", "low", "high")]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = [f"{name}_{end}".removesuffix("_value") for name, end in ends]
    writer.writerow([*rows[0].settings, "runs", "finished", "distinct_episodes", "episodes", *columns])
    for row in rows:
        numbers = [number_text(getattr(row.estimates.get(name), end, math.nan)) for name, end in ends]
        counts = [len(row.runs), row.finished, row.episodes[0], row.episodes[2]]
        writer.writerow([*row.settings.values(), *counts, *numbers])
    return file.getvalue()


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel for each number: bars are 95 % intervals, dots single runs."""
    metrics = _metrics(rows)
    names = [", ".join(f"{key}={value}" for key, value in row.settings.items()) or "all" for row in rows]
    figure = Figure(figsize=(3 + 3 * len(metrics), 1.4 + 0.35 * len(rows)), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        for place, row in enumerate(rows):
            if estimate := row.estimates.get(name):
                axes.hlines(place, estimate.low, estimate.high, color="#1f77b4", linewidth=2)  # NaN draws nothing
                axes.plot(estimate.each, [place] * len(estimate.each), ".", color="#7f7f7f", markersize=5)
                axes.plot(estimate.value, place, "|", color="black", markersize=12)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _metrics(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.estimates))


if __name__ == "__main__":
    main()
