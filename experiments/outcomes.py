"""What one training seed of a study found: small files that can be kept, and from which the report is made.

``seed_<n>.json`` says how it was made, what every cell cost, and the errors of the models. ``seed_<n>.csv`` has a line
per episode and two columns per cell: the raw step at which the episode was solved (0 or less: it was not), and whether
it was in its region at the end (1 or 0); empty where it was not played.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.result import Findings, Result
from experiments.shorthand import ONLY
from utils.files import write_text
from utils.pages import read_numbers, write_numbers
from utils.reading.opening import FileError

BEFORE = {"seconds": "planning_seconds", "evaluations": "rollouts", "gradients": "gradients"}
"""Names of costs in the first format, which had one set of goals, no final success, and no floor but doing nothing."""
KEPT = ("model", "planner", "goals", "floors", "budget_steps", "cost", "unsolved_starts_only")
STEP, FINAL = "step", "final"


@dataclass(frozen=True)
class Outcomes:
    """All results of one training seed.

    Attributes:
        seed: Of training.
        made: "date", "revision", "versions" and the like: when, by which code and with what.
        results: Of its evaluations.
        errors: Base -> model -> "dataset" or "planner" -> one-step visual error.
    """

    seed: int
    made: Mapping[str, Any]
    results: Sequence[Result]
    errors: Mapping[str, Mapping[str, Mapping[str, float]]]

    @classmethod
    def of(cls, findings: Findings, seeds: Sequence[int], made: Mapping[str, Any]) -> Iterator[Outcomes]:
        """Take apart by seeds what a study found.

        Raises:
            ValueError: If two evaluations met different episodes.
        """
        refuse_other_episodes(findings.results, "delete their results and run again")
        for place, seed in enumerate(seeds):
            errors = {
                base: {m: {at: float(table[place].mean()) for at, table in e.items()} for m, e in models.items()}
                for base, models in findings.errors.items()
            }
            yield cls(seed, made, [result for result in findings.results if result.seed == seed], errors)

    def write(self, folder: Path) -> None:
        """Write the files of this seed, JSON and CSV."""
        folder.mkdir(parents=True, exist_ok=True)
        columns: dict[str, Sequence[Any]] = {}
        for result in self.results:
            name = f"{result.model} | {result.planner} | {result.goals}"
            columns[f"{name} | {STEP}"] = result.solved_at_step
            if result.final is not None:
                columns[f"{name} | {FINAL}"] = [int(inside) for inside in result.final]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["episode", *columns])
        for episode in range(max(len(each) for each in columns.values())):
            table.writerow([episode, *(each[episode] if episode < len(each) else "" for each in columns.values())])
        write_text(folder / f"seed_{self.seed}.csv", text.getvalue())
        cells = [{key: getattr(r, key) for key in KEPT} | {"episodes": _short(r.episodes)} for r in self.results]
        numbers = {"seed": self.seed, "made": self.made, "cells": cells, "errors": self.errors}
        write_numbers(folder / f"seed_{self.seed}.json", numbers)

    @classmethod
    def read(cls, folder: Path) -> list[Outcomes]:
        """Read all seeds in ``folder``, in their order.

        Raises:
            FileError: If a file is broken or one of the two is missing, or seeds met different episodes.
        """
        found = []
        for path in folder.glob("seed_*.json"):
            try:
                found.append(cls._of_files(read_numbers(path), _read_table(path.with_suffix(".csv"))))
            except (OSError, ValueError, TypeError, IndexError, KeyError) as error:
                raise FileError(f"{path} and the .csv beside it are not a study's outcomes: {error}") from None
        found.sort(key=lambda outcomes: outcomes.seed)
        advice = f"delete the old seeds in {folder} and run them again"
        refuse_other_episodes([result for of in found for result in of.results], advice)
        return found

    @classmethod
    def _of_files(cls, numbers: Mapping[str, Any], columns: Mapping[tuple[str, ...], list[int]]) -> Outcomes:
        seed, made, errors = numbers["seed"], numbers["made"], numbers["errors"]
        cells = numbers["cells"] if "cells" in numbers else list(_cells_of_before(numbers))
        results = []
        for cell in cells:
            key = (cell["model"], cell["planner"], cell["goals"])
            at, final = columns[*key, STEP], columns.get((*key, FINAL))
            about = {name: cell[name] for name in (*KEPT, "episodes") if name in cell}
            if "cells" not in numbers:  # rates, not numbers of episodes
                about["floors"] = {name: len(at) * rate for name, rate in cell["floors"].items()}
            inside = None if final is None else [value == 1 for value in final]
            results.append(Result(seed=seed, solved_at_step=at, final=inside, **about))
        return cls(seed, made, results, errors)


def _cells_of_before(numbers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Cells of the first format."""
    for model, planners in numbers["cost"].items():
        for planner, cost in planners.items():
            yield {
                "model": model,
                "planner": planner,
                "goals": ONLY,
                "episodes": _short(numbers["episodes"][planner]),
                "cost": {BEFORE[key]: value for key, value in cost.items() if key in BEFORE},
                "floors": {"nothing": cost["nothing"]},
            }


def findings_of(outcomes: Sequence[Outcomes]) -> Findings:
    """Put the seeds together again."""
    errors: dict[str, dict[str, dict[str, Any]]] = {}
    if outcomes:
        for base, models in outcomes[0].errors.items():
            known = [of.errors[base] for of in outcomes if base in of.errors]
            errors[base] = {
                model: {at: np.array([[each[model][at]] for each in known if model in each]) for at in where}
                for model, where in models.items()
            }
    return Findings(results=[result for of in outcomes for result in of.results], errors=errors)


def refuse_other_episodes(results: Sequence[Result], advice: str) -> None:
    """Refuse results that are to be compared episode by episode and are not of the same ones.

    Raises:
        ValueError: Naming two that met different episodes though they are of the same goals and as many, or two
            training seeds of a cell that met not as many.
    """
    first: dict[tuple[str, int], Result] = {}
    cells: dict[tuple[str, str, str], Result] = {}
    for result in results:
        of_cell = cells.setdefault((result.model, result.planner, result.goals), result)
        if of_cell.count != result.count:
            one, other = (f"seed {r.seed} met {r.count} episodes" for r in (of_cell, result))
            raise FileError(f"{result.model} with {result.planner}: {one}, {other}; {advice}")
        if result.episodes is None:
            continue
        before = first.setdefault((result.goals, result.count), result)
        if before.planner == result.planner and _short(before.episodes) != _short(result.episodes):
            one, other = (f"{r.model} (seed {r.seed}) with {r.planner}" for r in (before, result))
            raise FileError(f"{one} and {other} met different episodes; {advice}")


def _short(episodes: str | None) -> str | None:
    """A digest of what tells the episodes, which may be a list of hashes."""
    if episodes is None or " " not in episodes:
        return episodes
    return hashlib.sha256(episodes.encode()).hexdigest()


def _read_table(path: Path) -> dict[tuple[str, ...], list[int]]:
    """Read what ``write`` put into the table, and tables of the first format."""
    (head, *rows) = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    columns = {}
    for column, name in enumerate(head[1:], 1):
        parts = name.split(" | ")
        key = (*parts, ONLY, STEP) if len(parts) == 2 else tuple(parts)
        columns[key] = [int(row[column]) for row in rows if row[column]]
    return columns
