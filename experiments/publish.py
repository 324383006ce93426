"""The outcomes of studies that are kept in a checkout, and the page that shows them."""

from __future__ import annotations

from pathlib import Path

from experiments.config import StudyConfig
from experiments.outcomes import Outcomes
from experiments.tables import Tables
from utils.pages import write_block

FOLDER, PAGE = Path("docs/published"), Path("docs/recipes.md")
NOTHING = "No stage has been run yet."


def publish(root: Path, config: StudyConfig, outcomes: Path) -> None:
    """Keep what is in ``outcomes`` beside the outcomes of other seeds, and write the page of all.

    Raises:
        ValueError: If the page lacks its markers.
    """
    for of in Outcomes.read(outcomes):
        of.write(root / FOLDER / name(config))
    write_block(root / PAGE, name(config), block(root, config))


def block(root: Path, config: StudyConfig) -> str:
    """Write what the kept outcomes of a study say."""
    kept = Outcomes.read(root / FOLDER / name(config))
    return Tables(config, kept).page() if kept else NOTHING


def name(config: StudyConfig) -> str:
    """The name of a study: of its folder of kept outcomes, and between the markers of the page."""
    return Path(config.folder).name
