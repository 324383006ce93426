"""Loading a checkpoint as a model that is ready to plan."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from datasets.units.normalizer import Normalizer
from models.architecture import Architecture
from models.build import build_world_model
from models.checkpoints.architecture import stored_architecture
from models.checkpoints.native import Checkpoint, load_weights
from models.foreign.dino_wm import CheckpointError
from models.networks.dinov2 import RANDOM
from models.world_model import WorldModel
from utils.env_sizes import EnvSizes
from utils.ranges import EmbeddingSize, Small
from utils.schema import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(Settings):
    """What a DINOv2 is, where the checkpoint does not know.

    Attributes:
        weights: File of its state dict; None takes the file it was trained with, or where that does not exist (any
            more, or on this machine) searches the usual places.
        embed_dim: Width of a patch's features.
        depth: Layers.
        num_heads: Heads of a layer.
    """

    weights: str | None = None
    embed_dim: EmbeddingSize | None = None
    depth: Small | None = None
    num_heads: Small | None = None


def check_environment(checkpoint: Checkpoint, name: str) -> None:
    """Refuse a model of another environment.

    Raises:
        ValueError: Naming both.
    """
    trained = checkpoint.config.get("env")
    trained = trained.get("name") if isinstance(trained, Mapping) else None
    if trained is not None and trained != name:
        raise ValueError(f"env={name} was asked for, but {checkpoint.path} was trained on env={trained}")


def stored_normalizer(checkpoint: Checkpoint | None, sizes: EnvSizes) -> Normalizer | None:
    """The units a model was trained in; None where the checkpoint leaves that to the data set, as DINO-WM's do.

    Args:
        checkpoint: None when training from scratch.
        sizes: Of the environment.
    """
    if checkpoint is None:
        return None
    if "normalizer" in checkpoint.about:
        return Normalizer.from_dict(checkpoint.about["normalizer"])
    if statistics := checkpoint.about.get("statistics"):
        return Normalizer.from_dict(_without_states(sizes) | statistics)
    if checkpoint.config.get("normalize_action") is False:
        return Normalizer.identity(sizes.env_action_dim, sizes.state_dim, sizes.proprio_dim)
    return None


def _without_states(sizes: EnvSizes) -> dict[str, list[float]]:
    """States as they are: other programs' models, which look at images, know no statistics of them."""
    return Normalizer.identity(sizes.env_action_dim, sizes.state_dim, sizes.proprio_dim).to_dict()


def load_for_planning(
    checkpoint: Checkpoint, sizes: EnvSizes, encoder: EncoderConfig, device: torch.device
) -> tuple[WorldModel, Architecture]:
    """The model on ``device``, in eval mode and with frozen weights, and its architecture.

    Args:
        checkpoint: To load.
        sizes: Of the environment.
        encoder: What the user says of it.
        device: Where it computes.

    Raises:
        CheckpointError: If the checkpoint lacks a part that planning needs.
        ValueError: If a setting of the encoder contradicts the checkpoint or has no effect.
    """
    architecture = place_weights(stored_architecture(checkpoint), encoder.weights)
    architecture = _place_sizes(architecture, encoder, checkpoint.path)
    brought = {name.partition(".")[0] for name in checkpoint.tensors} & {"predictor", "decoder"}
    model = build_world_model(architecture, *sizes, without_weights=brought)
    absent = load_weights(model, checkpoint)
    needed = [part for part in absent if part in ("predictor", "projector", "action_encoder", "proprio_encoder")]
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


def _place_sizes(architecture: Architecture, encoder: EncoderConfig, source: Path) -> Architecture:
    """Set the sizes of an encoder that the checkpoint says nothing about."""
    stored = architecture.encoder.settings
    sizes = {key: size for key, size in vars(encoder).items() if key != "weights" and size is not None}
    for key, size in sizes.items():
        if key not in stored or stored[key] not in (None, size):
            has = f"{source} has encoder.{key}={stored[key]}" if key in stored else "this encoder has no such size"
            raise ValueError(f"encoder.{key}={size} was asked for, {has}; leave it out")
    return architecture.with_arguments("encoder", **sizes)


def place_weights(architecture: Architecture, weights: str | None = None) -> Architecture:
    """Set the file that an encoder reads its weights from.

    Args:
        architecture: Of a checkpoint.
        weights: The file; None keeps the one it was trained with, if that exists here, and else searches.

    Raises:
        ValueError: If ``weights`` are given to an encoder that has none.
    """
    encoder = architecture.encoder.settings
    if "weights" not in encoder:
        if weights:
            raise ValueError(
                f"encoder.weights={weights} has no effect: this model's encoder, {encoder['_target_']}, reads no "
                "weights of its own; leave it out"
            )
        return architecture
    stored = encoder["weights"]
    if not weights and (not stored or stored == RANDOM or Path(stored).expanduser().is_file()):
        return architecture
    if not weights:
        log.info("%s, the encoder's weights in training, is not here: searching the usual places", stored)
    return architecture.with_arguments("encoder", weights=weights or None)
