"""What a study compares; the comments of ``conf/recipe_wall.yaml`` say what each setting means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from utils.ranges import Count, Processes, Seed
from utils.schema import OpenSettings, Settings

Overrides = Sequence[str | Sequence[str]]
"""Overrides of a command; an interpolated list within a list stands for its items."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """One model of a study.

    Attributes:
        base: The model that it is finetuned from; None: trained from scratch.
        overrides: Of ``train.py``.
    """

    base: str | None = None
    overrides: Overrides


@dataclass(frozen=True, kw_only=True)
class Cells(Settings):
    """Which models are evaluated with which planners.

    Attributes:
        models: Their names.
        planners: Their names.
        n_evals: Episodes, the first so many; None: those of the study.
    """

    models: Sequence[str]
    planners: Sequence[str]
    n_evals: Count | None = None


@dataclass(frozen=True, kw_only=True)
class StudyConfig(OpenSettings):
    """A whole study.

    Attributes:
        env: Its ``plan_<env>.yaml`` plans.
        folder: Where everything goes.
        seeds: Training seeds to run now; each is a stage of its own.
        goals_seed: Of the evaluations: the same episodes for every model, planner and training seed.
        n_evals: Episodes of an evaluation.
        num_workers: Jobs at a time; None: one per core, at most 3.
        publish: Whether the numbers go into ``docs/published`` and the page.
        collect: Overrides of ``python -m datasets.collect``.
        models: By name.
        planners: Overrides of ``plan.py``, by name.
        evaluate: Overrides that all evaluations share.
        cells: What is evaluated, by the question that it answers.
        gap_planner: Whose plans the error of the models is measured on.
        compare: Pairs of models, the second taken from the first.
        compare_planners: Pairs of planners likewise, which meet the same episodes as far as both go.
    """

    env: str
    folder: str
    seeds: Sequence[Seed]
    goals_seed: Seed
    n_evals: Count
    num_workers: Processes | None
    publish: bool
    collect: Overrides
    models: Mapping[str, ModelConfig]
    planners: Mapping[str, Overrides]
    evaluate: Overrides
    cells: Mapping[str, Cells]
    gap_planner: str
    compare: Sequence[Sequence[str]]
    compare_planners: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        """Refuse names that nothing has, and what could not be kept or compared once it has run.

        Raises:
            ValueError: Naming the key, the value and what is allowed.
        """
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be at least one, each once, got {list(self.seeds)}")
        models, planners = set(self.models), set(self.planners)
        for name, model in self.models.items():
            _refuse_unknown(f"models.{name}.base", [model.base] if model.base else [], models - {name})
        for name, cells in self.cells.items():
            _refuse_unknown(f"cells.{name}.models", cells.models, models)
            _refuse_unknown(f"cells.{name}.planners", cells.planners, planners)
        _refuse_unknown("gap_planner", [self.gap_planner], planners)
        for key, known in (("compare", models), ("compare_planners", planners)):
            for pair in getattr(self, key):
                _refuse_unknown(key, pair, known)
                if len(pair) != 2:
                    raise ValueError(f"{key} must be pairs of names, got {list(pair)}")
        self._refuse_circles()
        self._refuse_two_lengths()
        for key, names in (("models", self.models), ("planners", self.planners)):
            _refuse_same_file(key, names)

    def _refuse_circles(self) -> None:
        """A model that waits for itself would never be trained."""
        for name in self.models:
            line = [name]
            while (base := self.models[line[-1]].base) is not None:
                if base in line:
                    raise ValueError(
                        f"models.{name}.base: {' <- '.join([*line, base])} is a circle; train one from scratch"
                    )
                line.append(base)

    def _refuse_two_lengths(self) -> None:
        """Models are compared on all episodes of a planner, so these must be as many for each."""
        lengths: dict[str, int] = {}
        for name, cells in self.cells.items():
            n_evals = cells.n_evals or self.n_evals
            for planner in cells.planners:
                if lengths.setdefault(planner, n_evals) != n_evals:
                    raise ValueError(
                        f"cells.{name}.n_evals: {planner!r} has {n_evals} episodes here and {lengths[planner]} in "
                        "other cells; give one of them another name in planners"
                    )


def flat(overrides: Overrides) -> list[str]:
    """List overrides one by one."""
    return [text for each in overrides for text in ([each] if isinstance(each, str) else each)]


def file_name(name: str) -> str:
    """Name of a model or planner in names of files."""
    return "".join(c if c.isalnum() else "_" for c in name)


def _refuse_same_file(key: str, names: Iterable[str]) -> None:
    known: dict[str, str] = {}
    for name in names:
        if "|" in name:
            raise ValueError(f"{key}: {name!r} must not have a bar, which separates the columns of the outcomes")
        if (other := known.setdefault(file_name(name), name)) != name:
            raise ValueError(f"{key}: {other!r} and {name!r} would use the same files; rename one")


def _refuse_unknown(key: str, names: Sequence[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{key}: there is no {name!r}; there are {', '.join(sorted(known))}")
