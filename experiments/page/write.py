"""Making ``report.html`` of what a study's folder holds."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from experiments.factors_table import NOTE, factors_table
from experiments.inputs import changed
from experiments.page import figures
from experiments.page.diagnoses import FAILURES, Diagnosis, diagnoses
from experiments.page.inspected import Frames, Run, inspected_runs, shown_episodes, split
from experiments.page.keys import Keys, used_goals
from experiments.page.planes import plane_pair
from experiments.page.svg import number
from experiments.page.table import percent, table
from experiments.page.terms import GLOSSARY, Terms
from experiments.page.tradeoff import CURRENCIES, tradeoff
from experiments.report import FILENAME, Report, was_edited
from utils.files import write_text
from utils.pages import digest

log = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent
MOST_BYTES = 40_000_000


def write_page(folder: Path) -> Path:
    """Write ``report.html`` into a study's folder, from ``report.json`` and the runs that it names.

    Args:
        folder: Holds ``report.json``, ``episodes.csv`` and, at the places it names, the runs that can be inspected.

    Returns:
        The page's path.

    Raises:
        FileError: If the report or a run is broken; the page stays as it was.
        OSError: If one cannot be read, or the page cannot be written.
    """
    path = folder / FILENAME
    report, edited = Report.read(path, strict=False), was_edited(path)
    runs, frames = inspected_runs(report, folder)
    page = render(report, runs, frames, changed(folder, report.inputs), edited)
    if len(page.encode()) > MOST_BYTES:
        log.warning("%s is larger than %d MB", folder / "report.html", MOST_BYTES // 1_000_000)
    if frames.is_full:
        log.warning("some episodes are shown without frames, which would make the page too large")
    write_text(folder / "report.html", page)
    return folder / "report.html"


def render(report: Report, runs: list[Run], frames: Frames, newer: list[str], edited: bool) -> str:
    """Make the page's text.

    Args:
        report: What it is about.
        runs: Those of the plan inspector.
        frames: Their frames.
        newer: Files that are no longer those which the report was made from.
        edited: Whether the report is no longer what it was when it was written.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,  # names of models are the user's, and may hold anything
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": number, "percent": percent, "script": _as_script}
    keys, why, goals = Keys.of(report), diagnoses(report), used_goals(report)
    columns, lines = table(report, keys)
    return environment.get_template("page.html.jinja").render(
        report=report,
        keys=keys,
        term=Terms(),
        glossary=GLOSSARY,
        newer=newer,
        edited=edited,
        digest=digest(report.as_json()),
        goals=goals,
        about={"made": asdict(report.made), "protocol": asdict(report.protocol)},
        currencies=CURRENCIES,
        tradeoffs={name: {each.key: tradeoff(report, keys, name, each) for each in CURRENCIES} for name in goals},
        distances=[svg for name in keys.planners if (svg := figures.success_by_distance(report, keys, name))],
        columns=columns,
        lines=lines,
        factors=(*found, NOTE) if (found := factors_table(report)) else None,
        pairs=[list(group) for _, group in groupby(report.pairs, key=lambda pair: pair.of)],
        gap_top=max((m.high or m.mean for gap in report.gap for m in (gap.dataset, gap.planner)), default=1.0),
        reasons=FAILURES,
        why=_drawn(why),
        bar=figures.interval_bar,
        runs=split(runs),
        run_episodes=[list(run.episodes) for run in runs],
        num_inspected=shown_episodes(runs),
        frames=frames,
        styles=Markup((TEMPLATES / "figures.css").read_text("utf-8") + (TEMPLATES / "page.css").read_text("utf-8")),
        scripts=Markup("".join((TEMPLATES / name).read_text("utf-8") for name in ("page.js", "inspector.js"))),
    )


def _as_script(value: Any) -> Markup:
    """Write data as JSON that no text within can end the script of."""
    return Markup(json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _drawn(every: list[Diagnosis]) -> list[dict[str, Any]]:
    """Every diagnosis with its figures, whose axes are the same for all, so that they can be compared."""
    errors = [m.high or m.mean for why in every for values in why.error_by_step.values() for m in values or () if m]
    norms = [m.high or m.mean for why in every for m in why.gradient_norm or () if m]
    return [
        {"about": why, "figures": [each for each in _figures(number_of, why, errors, norms) if each[1] is not None],
         "planes": [plane_pair(f"plane-{number_of}-{i}", plane) for i, plane in enumerate(why.plane)]}
        for number_of, why in enumerate(every)
    ]  # fmt: skip


def _figures(
    number_of: int, why: Diagnosis, errors: list[float], norms: list[float]
) -> list[tuple[str, Markup | None]]:
    found: list[tuple[str, Markup | None]] = []
    series = {
        label: (hue, values)
        for name, (label, hue) in figures.WHERE.items()
        if (values := why.error_by_step.get(name)) and any(values)
    }
    if series:
        axes = ("action blocks imagined", "latent error of the model")
        title = "Error by step of the horizon"
        found.append((title, figures.lines(f"error-{number_of}", title, series, axes, max(errors))))
    title = "Costs as imagined and as they came true"
    found.append((title, figures.exploitation(f"exploitation-{number_of}", title, why)))
    if why.gradient_norm and any(why.gradient_norm):
        axes, title = ("action block of the plan", "gradient norm"), "Gradient norm by step"
        gradient = {"gradient": (0, why.gradient_norm)}
        found.append((title, figures.lines(f"norm-{number_of}", title, gradient, axes, max(norms))))
    return found
