"""Published outcomes, and the pages and figures made of them: ``python -m experiments.publish`` makes all again.

``docs/published/<study>/`` keeps the outcomes of every training seed; ``docs/published/<study>.json`` is the report of
a study that was published before outcomes were kept. A page shows a study between the markers of its name, and its
summary between those of ``<study>_summary``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import figures, tables
from experiments.build import Builder
from experiments.choice import BLOCK, STUDIES, choice_table
from experiments.outcomes import Outcomes, findings_of
from experiments.report import Made, Report
from experiments.shorthand import study_config
from experiments.study import Study
from launch.command_line import plain
from launch.composing import Composer
from launch.conf import ROOT
from utils.pages import require_markers, write_block
from utils.revision import is_committed, revision

FOLDER = Path("docs/published")
NOTHING = "No stage has been run yet."
PICTURED: Mapping[str, Sequence[str]] = {
    "demo_wall": ("success", "gap"),
    "results_wall": ("success", "seconds", "rollouts"),
}
"""Figures that pages show, ``docs/images/<study>_<figure>.png``."""


def study_of(name: str) -> Study:
    """The study of a config of this project."""
    return Study(study_config(raw_config(name), name))


def raw_config(name: str) -> dict[str, Any]:
    """A config of this project as plain data."""
    return plain(Composer(name, None).config(()))


def publish(root: Path, study: Study, outcomes: Path) -> None:
    """Keep the outcomes of the study's seeds beside those of other seeds, and write the page of all.

    Raises:
        ValueError: If the page lacks its markers.
    """
    study_name = study.config.name
    for of in Outcomes.read(outcomes):
        if of.seed in study.config.seeds:  # the folder may hold others, of a revision that nobody has looked at
            of.write(root / FOLDER / study_name)
    (root / FOLDER / f"{study_name}.json").unlink(missing_ok=True)
    render(study_name, root, study)


def refuse_unpublishable(root: Path, study: Study, must_run: bool) -> None:
    """Find out before hours of work whether its outcomes could be published.

    Args:
        root: Of the checkout.
        study: To be run.
        must_run: Whether any job is yet to be done, by the code as it is now.

    Raises:
        ValueError: If there are no outcomes by training seed, no page has its markers, or files have changed since the
            last commit.
    """
    if study.config.collect is None:
        raise ValueError("publish=true: outcomes are published of studies that collect their data and train, only")
    _pages(study.config.name, root)
    code = revision()
    if must_run and not is_committed(code):
        raise ValueError(
            f"publish=true: the code is at revision {code}, and published numbers must come from a committed one: "
            "commit what has changed first, or leave publish out"
        )


def _pages(study: str, root: Path) -> list[Path]:
    """Pages with the markers of a study; there must be one."""
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    found = [page for page in pages if page.exists() and f"begin generated: {study} " in page.read_text("utf-8")]
    if not found:
        raise ValueError(f"{root}/docs: no page has the lines <!-- begin generated: {study} --> and end generated")
    for page in found:
        require_markers(page, study)
    return found


def published(study_name: str, root: Path, study: Study | None = None) -> Report | None:
    """The report of what is kept of a study; None if nothing is.

    Args:
        study_name: Of the config.
        root: Of the checkout.
        study: Of that name; None: as it is configured.
    """
    if (path := root / FOLDER / f"{study_name}.json").exists():
        return Report.read(path)
    kept = Outcomes.read(root / FOLDER / study_name)
    if not kept:
        return None
    return Builder(study or study_of(study_name), findings_of(kept), is_brief=True).report(_made(study_name, kept))


def _made(study_name: str, kept: Sequence[Outcomes]) -> Made:
    def each(key: str) -> str:
        return " and ".join(dict.fromkeys(str(of.made[key]) for of in kept if of.made.get(key)))

    known = [of.made["seconds"] for of in kept if of.made.get("seconds") is not None]
    return Made(
        date=each("date"),
        revision=each("revision"),
        command=f"python -m experiments {study_name}",
        versions=_versions(each("versions")),
        machine=each("machine"),
        seconds=sum(known) if len(known) == len(kept) else None,
        num_workers=kept[0].made.get("num_workers"),
    )


def _versions(text: str) -> dict[str, str]:
    """Take ``name version, name version`` apart; a list that cannot be is given as it is."""
    parts = [part.rpartition(" ") for part in text.split(", ") if part]
    return {first: last for first, _, last in parts} if all(first for first, _, _ in parts) else {"": text}


def blocks(study_name: str, report: Report | None, root: Path = ROOT) -> dict[tuple[Path, str], str]:
    """What stands between which markers of which page."""
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    found = {}
    for page in pages:
        text = page.read_text("utf-8") if page.exists() else ""
        images = "docs/images" if page.parent == root else "images"
        drawn = PICTURED.get(study_name, ())
        pictures = [f"![{figures.TITLES[figure]}]({images}/{study_name}_{figure}.png)" for figure in drawn]
        if f"begin generated: {study_name} " in text:
            found[page, study_name] = tables.as_markdown(report, pictures) if report else NOTHING
        if f"begin generated: {study_name}_summary " in text:
            found[page, f"{study_name}_summary"] = tables.summary(report) if report else NOTHING
    return found


def render(study_name: str, root: Path = ROOT, study: Study | None = None) -> None:
    """Write the blocks and draw the figures of one study from what is published of it.

    Raises:
        ValueError: If a page lacks one of its markers.
    """
    report = published(study_name, root, study)
    for (page, block), text in blocks(study_name, report, root).items():
        write_block(page, block, text)
    if report is not None and study_name in PICTURED:
        (root / "docs/images").mkdir(exist_ok=True)
        figures.draw_all(report, f"{root}/docs/images/{study_name}_", PICTURED[study_name], svg=False)


def names(root: Path = ROOT) -> list[str]:
    """Studies of which something is published."""
    kept = (root / FOLDER).iterdir() if (root / FOLDER).exists() else ()
    return sorted({path.stem for path in kept if path.suffix == ".json" or path.is_dir()})


def choice(root: Path = ROOT) -> str:
    """What the choice of the default objective rests on, of all three tasks."""
    reports = [published(each, root) for each in STUDIES]
    return choice_table([report for report in reports if report is not None])


if __name__ == "__main__":
    for each in names():
        render(each)
    write_block(ROOT / "docs/objectives.md", BLOCK, choice())
