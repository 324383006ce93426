"""What is checked before a study begins: every model, planner and override, each in a line that names it."""

from __future__ import annotations

from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from experiments import stages
from experiments.config import flat
from experiments.study import Study
from launch.composing import Composer
from launch.names import Names
from models.checkpoints.loading import check_environment
from models.checkpoints.native import read_checkpoint
from training.config import TrainConfig


def check(study: Study) -> None:
    """Refuse what would fail in a stage, hours from now.

    Raises:
        ValueError: Naming the setting, what is wrong, and what there is.
    """
    for name, model in study.config.models.items():
        for path in model.ckpt_path or []:
            _check_checkpoint(study, name, Path(path))
    for goals in study.config.goals:
        for planner in study.planners:
            overrides = study.settings(planner, goals)
            _check(study, f"planners.{planner}", study.plan_config, overrides)
            _one_line(f"planners.{planner}", lambda p=planner, g=goals: study.composed(p, g))
    for name, model in study.config.models.items():
        if model.overrides is not None:
            overrides = [*flat(model.overrides), "ckpt_path=unused", "run_dir=unused"]
            _check(study, f"models.{name}", "train", overrides)
            _one_line(f"models.{name}", lambda o=overrides: stages.composed(TrainConfig, "train", o, **study.added))


def _check_checkpoint(study: Study, name: str, path: Path) -> None:
    if not path.is_dir():
        raise ValueError(f"models.{name}: there is no folder {path}")
    check_environment(read_checkpoint(path), study.config.env)


def _check(study: Study, key: str, config: str, overrides: list[str]) -> None:
    """Let the names be checked as on the command line, which knows those that are near."""
    folder = study.added.get("config_dir")
    try:
        Names(Composer(config, Path(folder) if folder else None), overrides).check(sweep=False)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _one_line(key: str, compose: object) -> None:
    assert callable(compose)
    try:
        compose()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ValueError(f"{key}: {' '.join(str(error).split())}") from None
