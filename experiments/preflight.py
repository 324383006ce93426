"""What is checked before a study begins: every model, planner and override, each in a line that names it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from envs.factors import chosen_factors
from experiments import stages
from experiments.config import flat
from experiments.study import Study
from launch.composing import Composer
from launch.names import Names
from models.checkpoints.loading import check_environment
from models.checkpoints.native import read_checkpoint
from planning.config import PlanConfig
from training.config import TrainConfig
from utils.schema import Settings

log = logging.getLogger("experiments")


def check(study: Study) -> None:
    """Refuse what would fail in a stage, hours from now.

    Raises:
        ValueError: Naming the setting, what is wrong, and what there is.
    """
    frameskips: dict[int, str] = {}
    for name, model in study.config.models.items():
        for path in model.ckpt_path or []:
            found = _check_checkpoint(study, name, Path(path))
            if found is not None:
                frameskips.setdefault(found, name)
    first_goals, first_planner = next(iter(study.config.goals)), next(iter(study.planners))
    for planner in study.planners:
        _check(study, f"planners.{planner}", study.plan_config, study.settings(planner, first_goals), PlanConfig)
    for goals in study.config.goals:
        _check(study, f"goals.{goals}", study.plan_config, study.settings(first_planner, goals), PlanConfig)
    for name, model in study.config.models.items():
        if model.overrides is not None:
            _check(study, f"models.{name}", "train", flat(model.overrides), TrainConfig)
    if len(frameskips) > 1:
        _check_frameskips(study, frameskips)


def _check_frameskips(study: Study, found: Mapping[int, str]) -> None:
    """Distances and budgets are in blocks: models of longer ones would meet goals further away, and act longer."""
    said = f"models: {', '.join(f'{name} has frameskip={frameskip}' for frameskip, name in found.items())}"
    for goals in study.config.goals:
        source = study.composed(next(iter(study.planners)), goals).goal_source
        if source in ("dset", "random_action"):
            raise ValueError(
                f"{said}; with goal_source={source} they would meet different goals, so compare them apart"
            )
    log.warning("%s: with as many blocks they may execute different numbers of raw steps", said)


def _check_checkpoint(study: Study, name: str, path: Path) -> int | None:
    """Check a checkpoint, and return the raw steps of its blocks where its config says them."""
    if not path.exists():
        raise ValueError(f"models.{name}: there is no {path}")
    checkpoint = read_checkpoint(path)
    check_environment(checkpoint, study.config.env)
    frameskip = checkpoint.config.get("frameskip")
    return frameskip if isinstance(frameskip, int) else None


def _check(study: Study, key: str, config: str, overrides: Sequence[str], schema: type[Settings]) -> None:
    """Compose; what is wrong is said as on the command line, which knows the names that are near."""
    given = [*overrides, "ckpt_path=unused", "run_dir=unused"]
    try:
        found = stages.composed(schema, config, given, **study.added)
        if isinstance(found, PlanConfig) and found.vary:
            chosen_factors(found.env.factors, found.vary, found.env.name)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        folder = study.added.get("config_dir")
        try:
            Names(Composer(config, Path(folder) if folder else None), given).check(sweep=False)
        except ValueError as better:
            raise ValueError(f"{key}: {better}") from None
        raise ValueError(f"{key}: {' '.join(str(error).split())}") from None
