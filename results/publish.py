"""``python -m results.publish``: make the pages and figures of the study from ``docs/published`` again."""

from __future__ import annotations

from pathlib import Path

from launch.conf import ROOT
from results import figures
from results.numbers import Numbers
from results.page import markdown, summary
from utils.pages import digest, read_numbers, write_block

FOLDER = Path("docs/published")
NAME = "results_wall"


def blocks(numbers: Numbers) -> dict[tuple[str, str], str]:
    """What stands between which markers of which page."""
    return {
        ("docs/results.md", NAME): markdown(numbers, "images/results_"),
        ("README.md", f"{NAME}_summary"): summary(numbers),
    }


def render(root: Path) -> None:
    """Write the blocks and draw the figures of a checkout from its published numbers.

    Raises:
        ValueError: If a page lacks its markers.
    """
    published = read_numbers(root / FOLDER / f"{NAME}.json")
    numbers = Numbers.of_json(published)
    for (page, name), text in blocks(numbers).items():
        write_block(root / page, name, text)
    figures.draw_all(numbers, f"{root}/docs/images/results_", digest(published))


if __name__ == "__main__":
    render(ROOT)
