"""What a training starts from: a checkpoint or fresh weights, and the trajectories held out before."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.trajectories import Trajectories
from models.architecture import OPTIONAL, PARTS, Architecture
from models.build import build_world_model
from models.checkpoints.loading import check_environment, load_weights, with_encoder_weights
from models.checkpoints.native import Checkpoint, holds_checkpoint, read_checkpoint, trained_weights
from models.checkpoints.stored_architecture import settle_architecture
from models.world_model import WorldModel
from training.config import TrainConfig
from training.state import FILENAME, own_seed
from utils import distributed
from utils.nearby import hint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartingModel:
    """A model and where it comes from.

    Attributes:
        model: On its device.
        architecture: As built.
        checkpoint: None when training from scratch.
        fresh: Parts with untrained weights.
    """

    model: WorldModel
    architecture: Architecture
    checkpoint: Checkpoint | None
    fresh: list[str]


def starting_model(config: TrainConfig, explicit: Set[str], device: torch.device) -> StartingModel:
    """The model of ``ckpt_path``, or a new one if there is none.

    Raises:
        ValueError: If checkpoint, overrides and environment contradict each other.
    """
    base, env = Path(config.ckpt_path), config.env
    found = holds_checkpoint(base) and not _is_own(base, config.folder)
    checkpoint = read_checkpoint(base, facts=config.foreign) if found else None
    if checkpoint is None:
        if not (config.folder / "checkpoints" / FILENAME).exists():
            near = hint(base, trained_weights)
            log.warning("%s holds no checkpoint to start from (%s): TRAINING FROM SCRATCH", base, near)
    else:
        check_environment(checkpoint, env.name)
    architecture = settle_architecture(config.architecture, explicit, checkpoint)
    if checkpoint is not None and "encoder.weights" not in explicit:
        architecture = with_encoder_weights(architecture)
    torch.manual_seed(config.training.seed)  # initial weights now, dropout later
    model = build_world_model(architecture, *env.sizes)
    fresh = [*PARTS, *OPTIONAL] if checkpoint is None else load_weights(model, checkpoint)
    if not distributed.is_main():
        torch.manual_seed(own_seed(config.training.seed))  # equal weights, but not equal dropout
    return StartingModel(model.to(device), architecture, checkpoint, fresh)


def _is_own(base: Path, folder: Path) -> bool:
    """Whether the weights in ``base`` are those that this very run has saved so far, and so nothing to start from.

    Raises:
        ValueError: If the run would overwrite the weights that it starts from.
    """
    if base.resolve() != folder.resolve():
        return False
    if not (base / "checkpoints" / FILENAME).exists():
        raise ValueError(
            f"run_dir and ckpt_path are both {base}, which holds weights but no {FILENAME} to continue from: training "
            "would overwrite what it starts from; leave run_dir (hydra.run.dir) out, or choose another"
        )
    return True


def _data_settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What a checkpoint's ``hydra.yaml`` says of the data; empty where it was edited and does not."""
    found: Any = checkpoint.config
    for key in ("env", "dataset"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def split_trajectories(
    trajectories: Trajectories, checkpoint: Checkpoint | None, config: TrainConfig, explicit: Set[str]
) -> dict[str, list[int]]:
    """Numbers of the trajectories to train on and to validate on: "train" and "val".

    They are those of the checkpoint, if it knows them: what a model was validated on must not be trained on by the
    models that start from it, and what it was trained on must not be called unseen by them.

    Raises:
        ValueError: If an explicit setting asks for another split, or no validation trajectory is left.
    """
    training, validation = (numbers.tolist() for numbers in trajectories.train_val())
    if checkpoint is None or "validation" not in checkpoint.about:
        return {"train": training, "val": validation}
    asked, has = config.env.data.settings, _data_settings(checkpoint)
    for key in ("split_ratio", "split_seed"):
        if f"env.dataset.{key}" in explicit and key in has and asked[key] != has[key]:
            raise ValueError(
                f"env.dataset.{key}={asked[key]} was asked for, {checkpoint.path} was trained with {has[key]}; its "
                "validation trajectories have to stay apart: leave the override out"
            )
    stored = checkpoint.about["validation"]
    kept = [number for number in stored if number < len(trajectories)]  # in this order evaluations draw from them
    if not kept:
        raise ValueError(
            f"none of the {len(trajectories)} trajectories (env.dataset.n_rollout) is in the validation part that "
            f"{checkpoint.path} brings, whose first number is {min(stored, default=None)}; use more trajectories"
        )
    return {"train": sorted(set(range(len(trajectories))).difference(stored)), "val": kept}
