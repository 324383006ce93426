"""Runs a study: its stages, and its report, which is written again and again while they are worked."""

from __future__ import annotations

import csv
import logging
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import utils.runtime as runtime
from experiments import figures, tables
from experiments.build import Builder
from experiments.commands import commands
from experiments.inputs import digests, refuse_changed_models
from experiments.outcomes import Outcomes, findings_of, refuse_other_episodes
from experiments.page import write_page
from experiments.publish import publish, refuse_unpublishable
from experiments.report import Made, Report
from experiments.result import Findings, Result
from experiments.study import Study
from experiments.terminal import as_text
from launch.conf import ROOT
from launch.jobs import kept_results, run_jobs, workers_or_default
from launch.provenance import Provenance
from planning.episode_record import EPISODES, EpisodeRecord
from utils.files import write_file, write_text

log = logging.getLogger("experiments")

THROTTLE = 20.0  # while stages run: seconds between reports, and how many times longer than writing one takes
EPISODES_CSV = "episodes.csv"
COLUMNS = (
    "model", "planner", "goals", "seed", "episode", "episode_hash", "episode_seed", "solved_at_iteration",
    "solved_at_step", "solved", "final", "state_dist_at_end", "rollouts", "gradients", "tflop", "planning_seconds",
    "failure",
)  # fmt: skip
"""Of ``episodes.csv``."""


class Runner:
    """One call of a study.

    Args:
        study: What to do.
        command: The command line that asked for it.
        cluster: See ``run_jobs``.
    """

    def __init__(self, study: Study, command: Sequence[str], cluster: Mapping[str, Any] | None = None) -> None:
        self.study, self.folder, self.command, self.cluster = study, study.folder, command, cluster
        self.jobs = study.jobs()
        self.kept = self.folder / "stages"
        self.workers = workers_or_default(study.config.num_workers)
        self._next = 0.0

    def run(self) -> Report:
        """Work the stages that are not finished, and write what is known of all."""
        config = self.study.config
        done = kept_results(self.jobs, self.kept)
        if config.publish:
            refuse_unpublishable(ROOT, self.study, must_run=len(done) < len(self.jobs))
        given = [path for model in config.models.values() for path in model.ckpt_path or []]
        refuse_changed_models(self.folder, given, has_results=bool(done))
        log.info("%d stages, %d of them done, in %s", len(self.jobs), len(done), self.folder)
        self.write(done, whole=False)
        try:
            results = run_jobs(self.jobs, self.kept, self.workers, self._finished, self.cluster)
        except Exception:
            self._write_if_possible(kept_results(self.jobs, self.kept))  # what the other stages found
            raise
        report = self.write(results, whole=True)
        if config.publish:
            Provenance.read(self.kept, results).require_committed(self.folder)
            publish(ROOT, self.study, self.folder / "outcomes")
        log.info("\n%s\n\nreport: %s", as_text(report), self.folder / "report.html")
        return report

    def _finished(self, results: Mapping[str, Any]) -> None:
        begin = time.monotonic()
        if begin >= self._next:
            self._write_if_possible(results)
            self._next = time.monotonic() + max(THROTTLE, THROTTLE * (time.monotonic() - begin))

    def _write_if_possible(self, results: Mapping[str, Any]) -> None:
        """Write what is known now; a report that cannot be written must not end hours of work."""
        try:
            self.write(results, whole=False)
        except Exception as error:
            log.warning("the report is not up to date: %s", error)

    def write(self, results: Mapping[str, Any], whole: bool) -> Report:
        """Write the report of the stages that have a result; ``whole``: these are all."""
        findings = findings_of_stages(self.study, results)
        refuse_other_episodes(findings.results, f"delete both in {self.folder} and run again")
        made = self._made(results)
        if whole and self.study.config.collect is not None:
            findings = self._with_other_seeds(findings, made)
        report = Builder(self.study, findings).report(
            made,
            [job.name for job in self.jobs if job.name not in results],
            commands=commands(self.jobs),
            inputs=digests(self.folder, self._inputs(results)),
        )
        write_report(self.folder, report, findings, whole)
        return report

    def _with_other_seeds(self, findings: Findings, made: Made) -> Findings:
        """Keep the outcomes of the seeds, and add those that were run by other calls."""
        kept, seeds = self.folder / "outcomes", self.study.config.seeds
        about: dict[str, Any] = {"date": made.date, "revision": made.revision, "versions": _joined(made.versions)}
        about |= {"seconds": made.seconds, "num_workers": made.num_workers, "machine": made.machine}
        for of in Outcomes.of(findings, seeds, about):
            of.write(kept)
        others = [of for of in Outcomes.read(kept) if of.seed not in seeds]
        if not others:
            return findings
        both = findings_of([*others, *Outcomes.of(findings, seeds, about)])
        return replace(both, why=findings.why)

    def _made(self, results: Mapping[str, Any]) -> Made:
        provenance, versions = Provenance.read(self.kept, results), runtime.describe_environment()
        return Made(
            date=provenance.date,
            revision=" and ".join(provenance.revisions),
            command=shlex.join(self.command),
            versions={key: value for key, value in versions.items() if key not in ("cpu", "revision")},
            machine=versions["cpu"],
            seconds=round(provenance.seconds, 1),
            num_workers=self.workers,
        )

    def _inputs(self, results: Mapping[str, Any]) -> list[Path]:
        stages = [self.kept / f"{name}.json" for name in results]
        files = ("results.json", "episodes.npz")
        return [*stages, *(self.folder / name / file for name in results for file in files)]


def findings_of_stages(study: Study, results: Mapping[str, Any]) -> Findings:
    """Take together what the stages returned that have a result."""
    found, errors = [], {}
    for cell in (*study.cells, *study.ceilings):
        seeds = study.config.seeds_of(cell.model)
        for seed in seeds[:1] if cell.is_ceiling else seeds:
            if (name := study.name(cell, seed)) in results:
                about = {"model": cell.model, "planner": cell.planner, "goals": cell.goals, "seed": seed}
                folder = name if (study.folder / name / EPISODES).exists() else None
                found.append(Result.of_metrics(results[name], folder=folder, **about))
    for base, models in study.finetuned().items():
        seeds = study.config.seeds_of(models[0])
        known = [results[name] for seed in seeds if (name := study.gap(base, seed)) in results]
        if known and len(known) == len(seeds):
            errors[base] = {
                model: {at: np.array([gap[model][at]["visual_mse"] for gap in known]) for at in ("dataset", "planner")}
                for model in (base, *models)
            }
    why = []
    for cell in study.diagnosed():
        seed = study.config.seeds_of(cell.model)[0]
        if (name := study.why(cell, seed)) in results:
            about = {"model": cell.model, "planner": cell.planner, "goals": cell.goals, "seed": seed}
            why.append(results[name] | about)
    return Findings(results=found, errors=errors, why=why)


def write_report(folder: Path, report: Report, findings: Findings, whole: bool) -> None:
    """Write ``report.json``, ``report.md``, ``report.html``; and ``episodes.csv``; of a whole report figures, too."""
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / EPISODES_CSV, lambda path: write_episodes(path, findings, folder))
    read_by_page = digests(folder, [folder / EPISODES_CSV])
    replace(report, inputs={**report.inputs, **read_by_page}).write(folder)
    drawn: list[str] = []
    if whole:
        (folder / "figures").mkdir(exist_ok=True)
        drawn = figures.draw_all(report, f"{folder}/figures/")
    shown = [f"![{figures.TITLES[name]}](figures/{name}.png)" for name in drawn]
    begin = f"# {report.title}\n\n{report.asked}\n\n"
    write_text(folder / "report.md", f"{begin}{tables.as_markdown(report, shown)}\n")
    write_page(folder)


def write_episodes(path: Path, findings: Findings, folder: Path) -> None:
    """Write a line for each model, planner, goals, seed and episode of the study in ``folder``; empty: not known."""
    failures = {
        (why.get("model"), why.get("planner"), why.get("goals"), why.get("seed"), each["episode"]): each["why"]
        for why in findings.why
        for each in why.get("sorted", ())
    }
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for result in findings.results:
            table.writerows(_lines(result, failures, folder))


def _lines(result: Result, failures: Mapping[tuple[Any, ...], str], folder: Path) -> Iterator[list[Any]]:
    """Make the lines of one evaluation, an episode each."""
    key = (result.model, result.planner, result.goals, result.seed)
    lists = {**result.lists, **_recorded(folder, result)}
    for episode, step in enumerate(result.solved_at_step):
        values = {name: each[episode] for name, each in lists.items()}
        values |= {
            "solved_at_step": max(0, step),
            "solved": int(step > 0),
            "failure": failures.get((*key, episode)),
        }
        values["final"] = None if result.final is None else int(result.final[episode])
        own = [values.get(name) for name in COLUMNS[5:]]
        yield [*key, episode, *("" if value is None else value for value in own)]


def _recorded(folder: Path, result: Result) -> dict[str, list[float]]:
    """Columns that only the record of a run's episodes has; it may be of fewer than a result that was put together."""
    path = folder / (result.folder or "") / EPISODES
    if result.folder is None or not path.exists():
        return {}
    seconds = EpisodeRecord.read(path, latents=False).planning_seconds.sum(1).tolist()
    return {"planning_seconds": seconds} if len(seconds) == result.count else {}


def _joined(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
