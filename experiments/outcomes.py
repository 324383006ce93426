"""What one training seed of a study found: small files that can be kept, and from which the report is made.

``seed_<n>.json`` says how it was made, what every cell cost, and the errors of the models. ``seed_<n>.csv`` has a line
per episode and a column per cell: the raw step at which the episode was solved, -1 if it was not, empty if it was not
played.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.study import Cell, Study
from utils.files import write_text
from utils.pages import read_numbers, write_numbers
from utils.reading.opening import FileError

COST = {
    "seconds": "planning_seconds_per_episode",
    "evaluations": "model_evaluations_per_episode",
    "gradients": "gradient_evaluations_per_episode",
    "nothing": "do_nothing_rate",
}
"""What is kept of a cell, and its name in ``results.json``."""


@dataclass(frozen=True)
class Outcomes:
    """All results of one training seed.

    Attributes:
        seed: Of training.
        made: When, with what and by which revision.
        episodes: Planner -> SHA-256 of the starts, goals and layouts that it met, the same with every model.
        solved_at: Model -> planner -> raw step at which each episode was solved, -1 if it was not.
        cost: Model -> planner -> the keys of ``COST``.
        errors: Base -> model -> "dataset" or "planner" -> one-step visual error.
        training_seconds: By model; of jobs that ran beside others.
    """

    seed: int
    made: Mapping[str, Any]
    episodes: Mapping[str, str]
    solved_at: Mapping[str, Mapping[str, Sequence[int]]]
    cost: Mapping[str, Mapping[str, Mapping[str, float]]]
    errors: Mapping[str, Mapping[str, Mapping[str, float]]]
    training_seconds: Mapping[str, float]

    @classmethod
    def of(cls, study: Study, seed: int, results: Mapping[str, Any], made: Mapping[str, Any]) -> Outcomes:
        """Collect what the jobs of a seed returned.

        Raises:
            ValueError: If two evaluations of equally many episodes met different ones.
        """
        found = [(cell, results[cell.name(seed)]) for cell in study.cells]
        return cls(
            seed=seed,
            made=made,
            episodes=_episodes(found),
            solved_at=_nested(found, lambda result: list(result["solved_at_step"])),
            cost=_nested(found, lambda result: {key: result[name] for key, name in COST.items()}),
            errors={base: _errors(results[study.gap(base, seed)]) for base in study.finetuned()},
            training_seconds={m: results[study.training(m, seed)]["seconds"] for m in study.config.models},
        )

    def write(self, folder: Path) -> None:
        """Write both files."""
        folder.mkdir(parents=True, exist_ok=True)
        plain = asdict(self)
        columns = [(m, p, at) for m, planners in plain.pop("solved_at").items() for p, at in planners.items()]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["episode", *(f"{model} | {planner}" for model, planner, _ in columns)])
        for episode in range(max(len(at) for _, _, at in columns)):
            table.writerow([episode, *(at[episode] if episode < len(at) else "" for _, _, at in columns)])
        write_text(folder / f"seed_{self.seed}.csv", text.getvalue())
        write_numbers(folder / f"seed_{self.seed}.json", plain)

    @classmethod
    def read(cls, folder: Path) -> list[Outcomes]:
        """Read all seeds in ``folder``, in their order.

        Raises:
            FileError: If a file is broken or one of the two is missing, or seeds met different episodes.
        """
        found = []
        for path in folder.glob("seed_*.json"):
            try:
                solved_at = _read_table(path.with_suffix(".csv"))
                found.append(cls(**{**read_numbers(path), "solved_at": solved_at}))
            except (OSError, ValueError, TypeError, IndexError) as error:
                raise FileError(f"{path} and the .csv beside it are not a study's outcomes: {error}") from None
        found.sort(key=lambda outcomes: outcomes.seed)
        _refuse_other_episodes(folder, found)
        return found

    def solved(self, model: str, planner: str) -> np.ndarray:
        """(episodes,) of 0 and 1."""
        return (np.array(self.solved_at[model][planner]) >= 0).astype(float)


def _nested(found: Sequence[tuple[Cell, Any]], pick: Any) -> dict[str, dict[str, Any]]:
    """Arrange by model, then by planner, what ``pick`` takes from each result."""
    arranged: dict[str, dict[str, Any]] = {}
    for cell, result in found:
        arranged.setdefault(cell.model, {})[cell.planner] = pick(result)
    return arranged


def _episodes(found: Sequence[tuple[Cell, Any]]) -> dict[str, str]:
    """Hash the episodes of each planner, the same for all models."""
    hashes: dict[str, str] = {}
    for cell, result in found:
        met = hashlib.sha256(" ".join(result["episode_hash"]).encode()).hexdigest()
        if hashes.setdefault(cell.planner, met) != met:
            raise ValueError(f"{cell.model} with {cell.planner} met other episodes than the rest: delete its results")
    return hashes


def _refuse_other_episodes(folder: Path, found: Sequence[Outcomes]) -> None:
    """Seeds are averaged episode by episode."""
    first: dict[str, tuple[str, int]] = {}
    for of in found:
        for planner, met in of.episodes.items():
            before, seed = first.setdefault(planner, (met, of.seed))
            if before != met:
                raise FileError(
                    f"{folder}: seeds {seed} and {of.seed} met different episodes with {planner} (another n_evals, "
                    "goals_seed or source of goals); delete seed_*.json of the old ones there, and run again"
                )


def _errors(gap: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Mean one-step visual errors of the models of one base."""
    return {
        model: {where: float(np.mean(of["visual_mse"])) for where, of in found.items()} for model, found in gap.items()
    }


def _read_table(path: Path) -> dict[str, dict[str, list[int]]]:
    """Read what ``write`` put into the table."""
    (head, *rows) = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    solved_at: dict[str, dict[str, list[int]]] = {}
    for column, name in enumerate(head[1:], 1):
        model, planner = name.split(" | ")
        solved_at.setdefault(model, {})[planner] = [int(row[column]) for row in rows if row[column]]
    return solved_at
