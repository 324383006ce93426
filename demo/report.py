"""What the demo found: tables, figures, videos; ``report.html`` opens offline, ``report.json`` holds the numbers."""

from __future__ import annotations

import base64
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

from demo import figures
from demo.scores import Gap, Score
from demo.text import as_text, findings
from launch.provenance import Provenance
from utils.files import write_json, write_text
from utils.pages import digest
from utils.statistics import Z95, paired_difference


class Report:
    """Collects the stages' results.

    Args:
        config: Of the demo.
        results: Stage name -> result.
        folder: Where everything is.
        commands: The equivalent command lines.
        environment: Versions and hardware.
        provenance: When and at which revision the stages were run.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        results: Mapping[str, Any],
        folder: Path,
        commands: Sequence[str],
        environment: Mapping[str, str],
        provenance: Provenance,
    ) -> None:
        self.config, self.results, self.folder = config, results, folder
        self.commands, self.environment = commands, environment
        self.provenance = provenance
        self.models = ["base", *(name for name in config["finetune"] if name != "common")]
        self.planners = [name for name in config["evaluate"] if name != "common"]
        self.scores = [self._score(model, planner) for planner in self.planners for model in self.models]
        self.gaps = [self._gap(model) for model in self.models]

    def _score(self, model: str, planner: str) -> Score:
        metrics = self.results[f"{model}_{planner}"]
        solved, of_base = (
            [at > 0 for at in self.results[f"{name}_{planner}"]["solved_at"]] for name in (model, "base")
        )
        nothing = [metrics.get(f"do_nothing_rate{end}") for end in ("", "_low", "_high")]
        return Score(
            model,
            planner,
            metrics["n_evals"],
            metrics["success_rate"],
            metrics["success_rate_low"],
            metrics["success_rate_high"],
            None if model == "base" else paired_difference(of_base, solved),
            metrics["planning_seconds_per_episode"],
            metrics["model_evaluations_per_episode"],
            None if None in nothing else (nothing[0], nothing[1], nothing[2]),
            metrics.get("solved_at_start_rate"),
        )

    def _gap(self, model: str) -> Gap:
        errors = self.results["gap"][model]
        return Gap(model, *(_mean(errors[where]["visual_mse"]) for where in ("dataset", "planner")))

    def as_text(self) -> str:
        """Both tables and the findings, for the terminal."""
        return as_text(self.scores, self.gaps)

    def described(self) -> dict[str, Any]:
        """All numbers, and what they were made with, as plain data."""
        return {
            "made": {
                "date": self.provenance.date,
                "seconds": round(self.provenance.seconds, 1),
                "num_workers": self.config["num_workers"],
                "unsolved_starts_only": self.results[f"base_{self.planners[0]}"]["unsolved_starts_only"],
            },
            "config": dict(self.config),
            "scores": [asdict(score) for score in self.scores],
            "gap": [asdict(gap) | {"ratio": gap.ratio} for gap in self.gaps],
            "findings": findings(self.scores, self.gaps),
            "stage_seconds": {name: r["seconds"] for name, r in self.results.items() if "seconds" in r},
            "environment": {**self.environment, "revision": " and ".join(self.provenance.revisions)},
            "commands": list(self.commands),
        }

    def write(self) -> None:
        """Write ``report.json``, the figures and ``report.html``."""
        described = self.described()
        write_json(self.folder / "report.json", described)
        pictures = figures.draw_all(self.scores, self.gaps, f"{self.folder}/", digest(described))
        pictures["What the base model imagines, open loop (true above, imagined below)"] = self._last_open_loop()
        templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(default=True), trim_blocks=True
        )
        page = templates.get_template("report.html.jinja").render(
            report=self,
            described=described,
            pictures={title: _embedded(path, "image/png") for title, path in pictures.items() if path.exists()},
            videos={title: _embedded(path, "video/mp4") for title, path in self._videos().items()},
            workers=self.config["num_workers"],
            machine=platform.processor() or platform.machine(),
        )
        write_text(self.folder / "report.html", page)

    def _last_open_loop(self) -> Path:
        drawn = (self.folder / "base" / "open_loop").glob("epoch_*.png")
        return max(drawn, key=lambda path: path.stat().st_mtime, default=self.folder / "none")

    def _videos(self) -> dict[str, Path]:
        """Choose an episode that each model solved under the first planner, and one that it did not."""
        chosen = {}
        for model in self.models:
            folder = self.folder / f"{model}_{self.planners[0]}"
            for outcome in ("success", "failure"):
                found = sorted(folder.glob(f"output_final_*_{outcome}.mp4"))
                if found:
                    chosen[f"{model}, episode {found[0].stem.split('_')[2]}: {outcome}"] = found[0]
        return chosen


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval."""
    return fmean(values), Z95 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _embedded(path: Path, kind: str) -> str:
    """A data URL, so that the page needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
