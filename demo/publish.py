"""``python -m demo.publish``: make the demos' tables and figures in the pages from ``docs/published`` again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo import figures
from demo.scores import Gap, Score
from demo.text import as_text
from launch.conf import ROOT
from utils.machine import as_duration
from utils.pages import digest, markdown_table, read_numbers, write_block, write_numbers

FOLDER = Path("docs/published")
PAGE = Path("docs/demo.md")
PICTURED = ("demo_wall",)
"""Demos whose figures the page shows, and whose table the README has."""


def publish(name: str, report: Mapping[str, Any], root: Path = ROOT) -> None:
    """Keep the numbers of a demo's ``report.json`` in a checkout, and make its pages from them.

    Raises:
        ValueError: If a page lacks its markers.
    """
    kept = ("made", "environment", "config", "scores", "gap")
    write_numbers(root / FOLDER / f"{name}.json", {key: report[key] for key in kept})
    render(name, root)


def render(name: str, root: Path = ROOT) -> None:
    """Write the blocks and draw the figures of one demo from its published numbers.

    Raises:
        ValueError: If a page lacks its markers.
    """
    numbers = read_numbers(root / FOLDER / f"{name}.json")
    for (page, block), text in blocks(name, numbers).items():
        write_block(root / page, block, text)
    if name in PICTURED:
        figures.draw_all(*_numbers(numbers), f"{root}/docs/images/{name}_", digest(numbers), ("success", "gap"))


def blocks(name: str, numbers: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """What stands between which markers of which page."""
    texts = {(str(PAGE), name): _whole(name, numbers)}
    return texts | {("README.md", f"{name}_summary"): _summary(numbers)} if name in PICTURED else texts


def _whole(name: str, numbers: Mapping[str, Any]) -> str:
    """Where the numbers are from, the tables, the figures."""
    made, where = numbers["made"], numbers["environment"]
    env, workers = numbers["config"]["env"], made["num_workers"]
    command = "make demo" if env == "wall" else f"make demo ENV={env}"
    protocol = f"unsolved_starts_only={str(made['unsolved_starts_only']).lower()}{made.get('note', '')}"
    parts = [
        f"`{command}`, {made['date']}, revision {where['revision']}: {as_duration(made['seconds'])} with {workers} "
        f"stage{'s' * (workers > 1)} at a time on {where['cpu']}, torch {where['torch']}, Python {where['python']}; "
        f"{protocol}.",
        f"```\n{as_text(*_numbers(numbers))}\n```",
    ]
    if name in PICTURED:
        images = f"images/{name}_"
        parts.append(
            f"![Success of the four models]({images}success.png) ![One-step error of the four models]({images}gap.png)"
        )
    return "\n\n".join(parts)


def _summary(numbers: Mapping[str, Any]) -> str:
    """One row per model: what each planner solves with it, and its error where plans lead."""
    scores, gaps = _numbers(numbers)
    planners = list(dict.fromkeys(score.planner for score in scores))
    solved = {(s.model, s.planner): f"{100 * s.success:.0f} % [{100 * s.low:.0f}, {100 * s.high:.0f}]" for s in scores}
    titles = ["model", *(f"{planner} solves" for planner in planners), "error where the base's plans lead"]
    rows = [[gap.model, *(solved[gap.model, planner] for planner in planners), f"{gap.planner[0]:.3f}"] for gap in gaps]
    made = f"{scores[0].episodes} episodes, revision {numbers['environment']['revision']}, {numbers['made']['date']}"
    note = f"({made}; in brackets 95 % intervals over episodes, of one training seed.)"
    return f"{markdown_table(titles, rows)}\n\n{note}"


def _numbers(data: Mapping[str, Any]) -> tuple[list[Score], list[Gap]]:
    gaps = [Gap(row["model"], row["dataset"], row["planner"]) for row in data["gap"]]
    return [Score(**row) for row in data["scores"]], gaps


if __name__ == "__main__":
    for path in sorted((ROOT / FOLDER).glob("demo_*.json")):
        render(path.stem)
