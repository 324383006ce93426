"""What an agent is made of: the model of a checkpoint and, by the settings of ``plan.py``, what plans with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import utils.runtime as runtime
from launch.from_python import plain_errors, settings_of
from launch.grammar import key_of, quoted
from models.checkpoints.loading import check_environment
from models.checkpoints.native import Checkpoint, read_checkpoint
from planning.config import PlanConfig
from planning.mpc import MPCController
from planning.objectives import GoalDistance
from planning.prepare_evaluation import LoadedModel, load_model
from utils.loggers import last_value
from utils.model_hub import SCHEME, fetch_model

DEFAULTS = ("run_dir=unused", "n_plot_samples=0", "n_evals=1")


@dataclass(frozen=True)
class AgentParts:
    """What ``load_parts`` finds.

    Attributes:
        config: The settings.
        loaded: The model.
        controller: The planner and its loop.
        objective: What it minimises.
        knows_env: Whether its environment is known, with a simulator and perhaps data.
        usual_error: The model's one-step error on its validation data; None if nothing says it.
    """

    config: PlanConfig
    loaded: LoadedModel
    controller: MPCController
    objective: GoalDistance
    knows_env: bool
    usual_error: float | None


def load_parts(ckpt_path: str | Path, settings: Sequence[str], config_dir: str | Path | None = None) -> AgentParts:
    """Load and check everything.

    Args:
        ckpt_path: See ``plan.py``.
        settings: Further ones of ``plan.py``.
        config_dir: A folder of options of one's own.

    Raises:
        ValueError: If a setting is wrong, or the model does not fit; in one line.
        OSError: If a file cannot be read, or a hub not be reached.
    """
    path = str(fetch_model(str(ckpt_path))) if str(ckpt_path).startswith(SCHEME) else str(ckpt_path)
    words = [*DEFAULTS, f"ckpt_path={quoted(path)}", *settings]
    config = settings_of(PlanConfig, "plan_wall", words, None if config_dir is None else Path(config_dir))
    if config.dynamics != "model":
        raise ValueError(f"dynamics={config.dynamics}: an agent plans with its model; leave it out")
    with plain_errors():
        controller, objective = MPCController.of(config.planner.build()), config.objective.build()
    if controller.shrinking == "budget":
        raise ValueError("planner.shrinking=budget needs an end, which an agent does not know: use none or plan")
    checkpoint = read_checkpoint(Path(config.ckpt_path), config.model_epoch, config.foreign)
    keys = set(map(key_of, settings))
    config, knows_env = _with_env(config, checkpoint, keys)
    device = runtime.pick_device(config.device)
    runtime.set_threads(config.num_threads)
    with plain_errors(), runtime.autocast(config.precision, device, keeps_casts=False):
        loaded = load_model(config, checkpoint, controller.planner, device)
    log = checkpoint.path.parent.parent / "logs.json"
    usual = last_value(log, "val_loss") if checkpoint.is_ours and log.is_file() else None
    return AgentParts(config, loaded, controller, objective, knows_env, usual)


def _with_env(config: PlanConfig, checkpoint: Checkpoint, given: set[str]) -> tuple[PlanConfig, bool]:
    """Put in the sizes of the environment that a checkpoint brings where nobody says which one it is; whether so.

    Raises:
        ValueError: If it is another than was said, or neither says it.
    """
    trained = checkpoint.config.get("env")
    name = trained.get("name") if isinstance(trained, dict) else None
    if "env" in given or name == config.env.name:
        check_environment(checkpoint, config.env.name)
        return config, True
    units = checkpoint.about.get("normalizer") or checkpoint.about.get("statistics")
    if units is None:
        raise ValueError(
            f"{checkpoint.path} does not say in which units its actions are: name its environment, such as env=pusht, "
            "or set foreign.statistics"
        )
    env = replace(
        config.env,
        name=str(name or "unknown"),
        env_action_dim=len(units["action_mean"]),
        proprio_dim=len(units["proprio_mean"]),
        state_dim=len(units.get("state_mean", units["proprio_mean"])),
        dataset=config.env.dataset if "dataset" in given else None,
    )
    return replace(config, env=env), False
