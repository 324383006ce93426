"""What a training refuses, or warns of, before its first step."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from datasets.trajectories import Trajectories
from models.checkpoints.config_file import read_model_config
from models.checkpoints.native import LATEST, holds_checkpoint, read_checkpoint, trained_weights, weights_file
from models.interfaces import Encoder
from models.speed.fast_paths import FastPaths
from models.world_model import WorldModel
from training.config import TrainConfig, TrainingConfig
from training.latents.cache import LATENT_CACHES, LATENT_DTYPES
from training.methods.base import Method
from training.methods.offline import Offline
from training.settings import TrainSettings
from training.start import StartingModel
from training.state import FILENAME
from utils import distributed
from utils.env_sizes import EnvSizes
from utils.nearby import hint
from utils.settings import same_settings

log = logging.getLogger(__name__)

FREE_ON_RESUME = ("run_dir", "dry_run", "device", "num_threads", "logger",
                  "env.num_workers", "ckpt_path", "from_scratch", "memory_budget_gb", "disk_patience_minutes",
                  "method.memory_budget_gb", "training.latent_dir", "method.speed",
                  *(f"speed.{name}" for name in vars(FastPaths()) if name != "fast_dropout"))  # fmt: skip
"""What may differ; ways of being fast change results by rounding only, but for the masks of the fast dropout."""


def check_method(method: Method, settings: TrainSettings) -> None:
    """A method and the parts that are trained must go together."""
    if not method.trains_dynamics:
        for key in ("train_encoder", "train_projector", "train_predictor"):
            if getattr(settings, key):
                first = " (a new projector wants a training of its own first)" if key == "train_projector" else ""
                raise ValueError(
                    f"model.{key}=true excludes method={method.name}, which trains the proposal and "
                    f"leaves the dynamics as they are; leave it out{first}"
                )
        return
    dynamics = settings.train_predictor or settings.trains_features
    if not dynamics and type(method) is not Offline:
        raise ValueError(
            f"method={method.name} has no effect where the predictor is not trained (model.train_predictor, "
            "has_predictor); use method=offline"
        )
    if settings.train_encoder and method.needs_env:
        raise ValueError(
            f"method={method.name} keeps latents of a frozen encoder; it excludes model.train_encoder=true"
        )


def check_base(config: TrainConfig, method: Method) -> None:
    """A finetuning method needs a trained model, and a path that leads into one is a mistake of any method."""
    base, scratch = Path(config.ckpt_path), config.from_scratch
    if (config.folder / "checkpoints" / FILENAME).exists():
        return  # it goes on with what it has
    near = f"ckpt_path={base} holds no model_{LATEST}"
    if holds_checkpoint(base):
        if scratch:
            raise ValueError(
                f"from_scratch=true, but ckpt_path={base} holds a model, which training would start from: leave "
                "from_scratch out, or name another ckpt_path"
            )
    elif not method.trains_dynamics:
        raise ValueError(
            f"method={method.name} proposes actions for a trained model, and {near}: {hint(base, trained_weights)}; "
            "train one first (method=offline), or name its folder"
        )
    elif base.is_file() or _is_inside_a_model(base):
        raise ValueError(f"{near}: {hint(base, trained_weights)}")
    elif method.finetunes and not scratch:
        raise ValueError(
            f"method={method.name} finetunes a trained model, and {near}: {hint(base, trained_weights)}; name a model "
            "directory, or set from_scratch=true if a new model is meant"
        )


def _is_inside_a_model(folder: Path) -> bool:
    """Whether a folder is the one in which a model directory keeps its weights."""
    return folder.name == "checkpoints" and weights_file(folder.parent) is not None


def check_processes(settings: TrainSettings) -> None:
    """Every process must have a sample of every batch."""
    if settings.batch_size < distributed.size():
        raise ValueError(
            f"training.batch_size={settings.batch_size} is the batch of all processes together, and there are "
            f"{distributed.size()}: make it at least that, or start fewer processes"
        )


def check_data(start: StartingModel, data: Trajectories, sizes: EnvSizes) -> None:
    """Rows must have the environment's entries, and frames the model's size; formats that can resize them do."""
    found = EnvSizes(data.env_action_dim, data.proprio_dim, data.state_dim)
    if found != sizes:
        raise ValueError(
            f"the data have actions, proprio values and states of {', '.join(map(str, found))} entries, "
            f"the environment {data.name} has {', '.join(map(str, sizes))}: choose others with "
            "env.dataset.action, .proprio and .state where the format has these, or the environment of these data"
        )
    size, stored = start.architecture.img_size, data.frame_size
    if start.model.encoder.observes != "visual":
        return
    try:
        data.fit_frames(size)
    except ValueError as error:
        raise ValueError(
            f"{error}, the model's img_size is {size}; collect data with image_size={size}, or train from scratch with "
            f"img_size={stored}"
        ) from error
    if data.frame_size != stored:
        log.info("frames of %d x %d pixels are resized to the model's %d", stored, stored, size)


def check_latent_cache(training: TrainingConfig, encoder: Encoder, train_encoder: bool) -> None:
    """Settings of the latent cache must mean something."""
    cache, dtype = training.latent_cache, training.latent_dtype
    for key, value, allowed in (("latent_cache", cache, LATENT_CACHES), ("latent_dtype", dtype, LATENT_DTYPES)):
        if value not in allowed:
            raise ValueError(f"training.{key} must be one of {', '.join(allowed)}, got {value!r}")
    if cache != "none" and train_encoder:
        raise ValueError(
            f"training.latent_cache={cache} keeps latents of a frozen encoder; it excludes model.train_encoder=true"
        )
    if cache != "none" and encoder.observes == "state":
        raise ValueError(f"training.latent_cache={cache} has no effect on an encoder that sees no images; set none")
    if cache == "none" and dtype != "float32":
        raise ValueError(f"training.latent_dtype={dtype} has no effect with training.latent_cache=none")
    if cache != "disk" and training.latent_dir is not None:
        raise ValueError(f"training.latent_dir has no effect with training.latent_cache={cache}; set disk")


def warn_of_moving_latents(model: WorldModel, settings: TrainSettings) -> None:
    """A proposal is kept by every method, but it knows only the latents that it was trained on."""
    moving = [part for part in ("encoder", "projector", "proprio_encoder") if any(_trained(getattr(model, part)))]
    if model.proposal is not None and not settings.train_proposal and moving:
        log.warning(
            "the proposal stays as it is while %s changes under it; train it again afterwards with method=proposal",
            " and ".join(moving),
        )


def _trained(module: nn.Module | None) -> Iterator[bool]:
    """Say of each of its parameters whether it takes gradients."""
    return (parameter.requires_grad for parameter in ([] if module is None else module.parameters()))


def check_resumable(folder: Path, config: Mapping[str, Any]) -> None:
    """A run is continued with the settings it began with, or not at all."""
    if not (folder / "checkpoints" / FILENAME).exists():
        return
    differences = same_settings(read_model_config(folder / "hydra.yaml"), config, FREE_ON_RESUME)
    if differences:
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(differences)}); resume it with the settings it has, "
            "or start a new run in another folder"
        )


def check_parent(folder: Path, about: Mapping[str, Any]) -> None:
    """A run is continued on the base it began with: learning rates, units and the split follow from it."""
    if not (folder / "checkpoints" / FILENAME).exists() or weights_file(folder) is None:
        return
    before = read_checkpoint(folder).about
    if before.get("parent_sha256") != about["parent_sha256"]:
        raise ValueError(
            f"{folder} was started from {before.get('parent') or 'scratch'}, now ckpt_path leads to "
            f"{about['parent'] or 'no checkpoint'}, or that file has changed; resume from the folder that the run was "
            "started in, with the base in its place"
        )
