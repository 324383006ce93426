"""Loading a checkpoint as a model that is ready to plan."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from datasets.units.normalizer import Normalizer
from models.build import build_world_model
from models.checkpoints.architecture import settle_architecture
from models.checkpoints.native import Checkpoint, load_weights
from models.foreign.dino_wm import CheckpointError
from models.networks.dinov2 import RANDOM
from models.world_model import WorldModel

log = logging.getLogger(__name__)


def check_environment(checkpoint: Checkpoint, name: str) -> None:
    """Refuse a model of another environment.

    Raises:
        ValueError: Naming both.
    """
    trained = checkpoint.config.get("env")
    trained = trained.get("name") if isinstance(trained, Mapping) else None
    if trained is not None and trained != name:
        raise ValueError(f"env={name} was asked for, but {checkpoint.path} was trained on env={trained}")


def stored_normalizer(checkpoint: Checkpoint | None, env: Mapping[str, Any]) -> Normalizer | None:
    """The units a model was trained in; None where the checkpoint leaves that to the data set, as DINO-WM's do.

    Args:
        checkpoint: None when training from scratch.
        env: Gives ``env_action_dim``, ``proprio_dim``, ``state_dim``.
    """
    if checkpoint is None:
        return None
    if "normalizer" in checkpoint.about:
        return Normalizer.from_dict(checkpoint.about["normalizer"])
    if checkpoint.config.get("normalize_action") is False:
        return Normalizer.identity(env["env_action_dim"], env["state_dim"], env["proprio_dim"])
    return None


def load_for_planning(
    checkpoint: Checkpoint, env: Mapping[str, Any], encoder: Mapping[str, Any] | None, device: torch.device
) -> tuple[WorldModel, dict[str, Any]]:
    """The model on ``device``, in eval mode and with frozen weights, and its architecture.

    Args:
        checkpoint: To load.
        env: Gives ``env_action_dim``, ``proprio_dim``, ``state_dim``.
        encoder: What the user says of it. ``weights``: file of a frozen encoder's own weights; None takes the file it
            was trained with, or where that does not exist (any more, or on this machine) searches the usual places.
            ``embed_dim``, ``depth``, ``num_heads``: sizes that the checkpoint does not know.

    Raises:
        CheckpointError: If the checkpoint lacks a part that planning needs.
        ValueError: If a setting of the encoder contradicts the checkpoint or has no effect.
    """
    architecture = settle_architecture({}, set(), checkpoint)
    said = dict(encoder or {})
    place_weights(architecture["encoder"], said.pop("weights", None))
    _place_sizes(architecture["encoder"], said, checkpoint.path)
    brought = {name.partition(".")[0] for name in checkpoint.tensors} & {"predictor", "decoder"}
    model = build_world_model(architecture, env["env_action_dim"], env["proprio_dim"], env["state_dim"], brought)
    absent = load_weights(model, checkpoint)
    needed = [part for part in absent if part in ("predictor", "action_encoder", "proprio_encoder")]
    if needed or model.predictor is None:
        raise CheckpointError(f"{checkpoint.path} has no {' and no '.join(needed or ['predictor'])}: it cannot plan")
    trained_with = checkpoint.about.get("encoder_sha256")
    if "encoder" in absent and trained_with and trained_with != model.encoder.weights_sha256:
        log.warning(
            "the encoder's weights are not the file that %s was trained with (SHA-256 %s, now %s)",
            *(checkpoint.path, trained_with, model.encoder.weights_sha256),
        )
    if "decoder" in absent:
        model.decoder = None  # an untrained decoder would only draw noise
    return model.to(device).eval().requires_grad_(False), architecture


def _place_sizes(encoder: dict[str, Any], sizes: Mapping[str, int | None], source: Path) -> None:
    """Set the sizes of an encoder that the checkpoint says nothing about, in place."""
    for key, size in sizes.items():
        if size is None:
            continue
        if key not in encoder or encoder[key] not in (None, size):
            stored = f"{source} has encoder.{key}={encoder[key]}" if key in encoder else "this encoder has no such size"
            raise ValueError(f"encoder.{key}={size} was asked for, {stored}; leave it out")
        encoder[key] = size


def place_weights(encoder: dict[str, Any], weights: str | None) -> None:
    """Set the file that an encoder reads its weights from, in place.

    Args:
        encoder: The encoder's part of an architecture.
        weights: The file; None keeps the one it was trained with, if that exists here, and else searches.

    Raises:
        ValueError: If ``weights`` are given to an encoder that has none.
    """
    if "weights" not in encoder:
        if weights:
            raise ValueError(
                f"encoder.weights={weights} has no effect: this model's encoder, {encoder['_target_']}, reads no "
                "weights of its own; leave it out"
            )
        return
    stored = encoder["weights"]
    if weights:
        encoder["weights"] = weights
    elif stored and stored != RANDOM and not Path(stored).expanduser().is_file():
        log.info("%s, the encoder's weights in training, is not here: searching the usual places", stored)
        encoder["weights"] = None
