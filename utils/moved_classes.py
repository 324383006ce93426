"""Present names of classes that older runs and checkpoints recorded under others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOVED = {
    "datasets.point_maze": "datasets.formats.point_maze",
    "datasets.point_maze_policy": "envs.point_maze.expert",
    "datasets.pusht": "datasets.formats.pusht",
    "datasets.pusht_policy": "envs.pusht.expert",
    "datasets.wall": "datasets.formats.wall",
    "datasets.wall_policy": "envs.wall.expert",
    "envs.point_maze": "envs.point_maze.simulator",
    "envs.pusht": "envs.pusht.simulator",
    "envs.wall": "envs.wall.vector_env",
    "models.conv_decoder": "models.networks.conv_decoder",
    "models.dinov2": "models.networks.dinov2",
    "models.initnet": "models.networks.initnet",
    "models.proprio": "models.networks.proprio",
    "models.residual": "models.networks.residual",
    "models.resnet_encoder": "models.networks.resnet_encoder",
    "models.small_encoder": "models.networks.small_encoder",
    "models.state_encoder": "models.networks.state_encoder",
    "models.vit": "models.networks.vit",
    "models.vqvae": "models.networks.vqvae",
    "planning.cem": "planning.planners.cem",
    "planning.cem_gd": "planning.planners.cem_gd",
    "planning.fast_paths": "models.speed.fast_paths",
    "planning.gd": "planning.planners.gd",
    "planning.gd_lbfgs": "planning.planners.gd_lbfgs",
    "planning.gradcem": "planning.planners.gradcem",
    "planning.mppi": "planning.planners.mppi",
    "training.adversarial": "training.methods.adversarial",
    "training.initnet.InitNetTraining": "training.methods.proposal.ProposalTraining",
    "training.offline": "training.methods.offline",
    "training.online": "training.methods.online",
    "training.online_adversarial": "training.methods.online_adversarial",
    "utils.loggers.WandbLogger": "utils.wandb_logger.WandbLogger",
    "utils.run_folder": "launch.run_folder",
}
"""Modules, and single classes, by their names in releases before December 2026, and where they are now."""


_FORMER = {now: before for before, now in MOVED.items()}


def current_names(node: Any) -> Any:
    """Give classes in plain data their present names, at any depth, wherever a text names one.

    Args:
        node: Settings as recorded: dicts, lists, texts and numbers.

    Returns:
        The same, as new containers.
    """
    return _renamed(node, MOVED)


def former_names(node: Any) -> Any:
    """Give classes in plain data the names of before December 2026, as ``current_names`` does the other way round."""
    return _renamed(node, _FORMER)


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _renamed(value, names) for key, value in node.items()}
    if isinstance(node, list):
        return [_renamed(value, names) for value in node]
    return _renamed_class(node, names) if isinstance(node, str) else node


def _renamed_class(text: str, names: Mapping[str, str]) -> str:
    separator = ":" if ":" in text else "."
    module, _, name = text.rpartition(separator)
    if not (module and name[:1].isupper()):
        return text
    return names.get(text) or f"{names.get(module, module)}{separator}{name}"
