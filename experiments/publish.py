"""The outcomes of studies that are kept in a checkout, and the page that shows them."""

from __future__ import annotations

from pathlib import Path

from experiments.config import StudyConfig
from experiments.outcomes import Outcomes
from experiments.tables import Tables
from utils.pages import require_markers, write_block
from utils.revision import is_committed, revision

FOLDER, PAGE = Path("docs/published"), Path("docs/recipes.md")
NOTHING = "No stage has been run yet."


def publish(root: Path, config: StudyConfig, outcomes: Path) -> None:
    """Keep the outcomes of the config's seeds beside those of other seeds, and write the page of all.

    Raises:
        ValueError: If the page lacks its markers.
    """
    for of in Outcomes.read(outcomes):
        if of.seed in config.seeds:  # the folder may hold others, of a revision that nobody has looked at
            of.write(root / FOLDER / name(config))
    write_block(root / PAGE, name(config), block(root, config))


def refuse_unpublishable(root: Path, config: StudyConfig, must_run: bool) -> None:
    """Find out before hours of work whether its outcomes could be published.

    Args:
        root: Of the checkout.
        config: Of the study.
        must_run: Whether any job is yet to be done, by the code as it is now.

    Raises:
        ValueError: If the page lacks its markers, or files have changed since the last commit.
    """
    require_markers(root / PAGE, name(config))
    code = revision()
    if must_run and not is_committed(code):
        raise ValueError(
            f"publish=true: the code is at revision {code}, and published numbers must come from a committed one: "
            "commit what has changed first, or leave publish out"
        )


def block(root: Path, config: StudyConfig) -> str:
    """Write what the kept outcomes of a study say."""
    kept = Outcomes.read(root / FOLDER / name(config))
    return Tables(config, kept).page() if kept else NOTHING


def name(config: StudyConfig) -> str:
    """The name of a study: of its folder of kept outcomes, and between the markers of the page."""
    return Path(config.folder).name
