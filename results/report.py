"""Writes down what the study found: numbers, tables, figures, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.provenance import Provenance
from results import figures
from results.jobs import Study
from results.page import markdown
from results.publish import FOLDER, NAME, render
from results.scores import Scores, goals_hash
from utils.files import write_json, write_text
from utils.pages import digest, write_numbers


class Report:
    """Collects the stages' results.

    Args:
        study: What was run.
        results: Job name -> result.
        environment: Versions and hardware.
        provenance: When and at which revision the stages were run.
    """

    def __init__(
        self, study: Study, results: Mapping[str, Any], environment: Mapping[str, str], provenance: Provenance
    ) -> None:
        self.study, self.results, self.provenance = study, results, provenance
        self.scores = Scores(study, results)
        self.goals = goals_hash([study.folder / run.name for run in (*study.table, *study.curve)])
        self.numbers = self.scores.numbers(
            {
                "date": provenance.date,
                "environment": {**environment, "revision": " and ".join(provenance.revisions)},
                "goals_sha256": self.goals,
                "protocol": self._protocol(),
                "hours": self._hours(),
                "note": "",
            }
        )

    def write(self) -> None:
        """Write ``report.json``, ``results.md`` and the figures into the study's folder."""
        folder, numbers = self.study.folder, self.numbers.as_json()
        write_json(folder / "report.json", numbers | {"config": dict(self.study.config), "runs": dict(self.results)})
        write_text(folder / "results.md", markdown(self.numbers, ""))
        figures.draw_all(self.numbers, f"{folder}/", digest(numbers))

    def publish(self, root: Path) -> None:
        """Keep the numbers in a checkout's ``docs/published``, and make its pages and figures from them.

        Raises:
            ValueError: If the stages were not all run at one committed revision, or a page lacks its markers.
        """
        self.provenance.require_one_revision(self.study.folder)
        write_numbers(root / FOLDER / f"{NAME}.json", self.numbers.as_json())
        render(root)

    def _protocol(self) -> str:
        """How the episodes were drawn, and how many of them begin solved."""
        found = self.results[self.study.table[0].name]
        drawn = str(found["unsolved_starts_only"]).lower()
        return (
            f"those of seed 99, unsolved_starts_only={drawn} ({100 * found['solved_at_start_rate']:.0f} % begin solved)"
        )

    def _hours(self) -> float:
        # evaluations report planning and simulation, trainings their whole time
        keys = ("seconds", "planning_seconds", "simulation_seconds")
        return sum(result.get(key, 0.0) for result in self.results.values() for key in keys) / 3600
