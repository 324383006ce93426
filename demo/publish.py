"""``python -m demo.publish``: make the README's demo tables and figures from ``docs/published`` again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo import figures
from demo.scores import Gap, Score
from demo.text import as_text
from utils.machine import as_duration
from utils.pages import digest, read_numbers, write_block, write_numbers

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("docs/published")
PICTURED = ("demo_wall",)
"""Demos whose figures the README shows."""


def publish(name: str, report: Mapping[str, Any], root: Path = ROOT) -> None:
    """Keep the numbers of a demo's ``report.json`` in a checkout, and make the README from them.

    Raises:
        ValueError: If the README lacks its markers.
    """
    kept = ("made", "environment", "config", "scores", "gap")
    write_numbers(root / FOLDER / f"{name}.json", {key: report[key] for key in kept})
    render(name, root)


def render(name: str, root: Path = ROOT) -> None:
    """Write the block and draw the figures of one demo from its published numbers.

    Raises:
        ValueError: If the README lacks its markers.
    """
    numbers = read_numbers(root / FOLDER / f"{name}.json")
    write_block(root / "README.md", name, block(name, numbers))
    if name in PICTURED:
        figures.draw_all(*_numbers(numbers), f"{root}/docs/images/{name}_", digest(numbers), ("success", "gap"))


def block(name: str, numbers: Mapping[str, Any]) -> str:
    """What stands in the README: where the numbers are from, the tables, the figures."""
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
        images = f"docs/images/{name}_"
        parts.append(
            f"![Success of the four models]({images}success.png) ![One-step error of the four models]({images}gap.png)"
        )
    return "\n\n".join(parts)


def _numbers(data: Mapping[str, Any]) -> tuple[list[Score], list[Gap]]:
    gaps = [Gap(row["model"], row["dataset"], row["planner"]) for row in data["gap"]]
    return [Score(**row) for row in data["scores"]], gaps


if __name__ == "__main__":
    for path in sorted((ROOT / FOLDER).glob("demo_*.json")):
        render(path.stem)
