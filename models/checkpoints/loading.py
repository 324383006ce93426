"""From a checkpoint to a model: its weights put into the networks, and a whole model that is ready to plan."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from datasets.units.normalizer import Normalizer
from models.architecture import BEHIND_PROJECTOR, OPTIONAL, PARTS, Architecture
from models.build import build_world_model
from models.checkpoints.native import Checkpoint
from models.checkpoints.stored_architecture import stored_architecture
from models.foreign.dino_wm import WITHOUT_EFFECT, CheckpointError, is_finite
from models.networks.dinov2 import RANDOM
from models.world_model import WorldModel
from utils.env_sizes import EnvSizes
from utils.ranges import EmbeddingSize, Small
from utils.schema import Settings

log = logging.getLogger(__name__)

MOST_PROBLEMS = 8  # listed in one error


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
    statistics = checkpoint.about.get("statistics")
    if not statistics and checkpoint.config.get("normalize_action") is not False:
        return None
    plain = Normalizer.identity(sizes.env_action_dim, sizes.state_dim, sizes.proprio_dim)
    # states stay as they are: other programs' models, which look at images, know no statistics of them
    return Normalizer.from_dict(plain.to_dict() | statistics) if statistics else plain


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
    architecture = with_encoder_weights(stored_architecture(checkpoint), encoder.weights)
    architecture = _with_encoder_sizes(architecture, encoder, checkpoint.path)
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


def _with_encoder_sizes(architecture: Architecture, encoder: EncoderConfig, source: Path) -> Architecture:
    """Set the sizes of an encoder that the checkpoint says nothing about."""
    stored = architecture.encoder.settings
    sizes = {key: size for key, size in vars(encoder).items() if key != "weights" and size is not None}
    for key, size in sizes.items():
        if key not in stored or stored[key] not in (None, size):
            has = f"{source} has encoder.{key}={stored[key]}" if key in stored else "this encoder has no such size"
            raise ValueError(f"encoder.{key}={size} was asked for, {has}; leave it out")
    return architecture.with_arguments("encoder", **sizes)


def with_encoder_weights(architecture: Architecture, weights: str | None = None) -> Architecture:
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


def load_weights(model: WorldModel, checkpoint: Checkpoint) -> list[str]:
    """Fill ``model`` from a checkpoint; returns the parts that it does not bring (they keep the weights they have).

    A model may have a projector where the checkpoint has none. Then the parts behind it are not brought either, and
    take over what tensors are of the same shape.

    Raises:
        CheckpointError: Listing every missing, unknown or misshapen tensor of the parts that it does bring.
    """
    brought = {name.split(".", 1)[0] for name in checkpoint.tensors}.difference(OPTIONAL)
    brought.update(checkpoint.optional_parts)
    new = BEHIND_PROJECTOR if model.projector is not None and "projector" not in brought else ()
    absent, problems = [], []
    for part in (*PARTS, *OPTIONAL):
        module = getattr(model, part)
        if module is None:
            continue
        found = {n.removeprefix(f"{part}."): t for n, t in checkpoint.tensors.items() if n.startswith(f"{part}.")}
        wanted = module.state_dict()
        if part not in brought and wanted:
            absent.append(part)
            continue
        if part in new:
            absent.append(part)
            fitting = {n: t for n, t in found.items() if n in wanted and wanted[n].shape == t.shape and is_finite(t)}
            log.info("%s: %d of its %d tensors are the checkpoint's", part, len(fitting), len(wanted))
            module.load_state_dict(fitting, strict=False)
            continue
        found = {name: tensor for name, tensor in found.items() if not WITHOUT_EFFECT.fullmatch(f"{part}.{name}")}
        problems += _differences(part, wanted, found)
        problems += _fill(part, module, {name: found[name] for name in wanted if name in found})
    if problems:
        raise CheckpointError(
            f"{checkpoint.path} does not fit the model that its hydra.yaml describes: "
            + _width_problem(model, checkpoint)
            + "; ".join(problems[:MOST_PROBLEMS])
            + (f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else "")
        )
    return absent


def _width_problem(model: WorldModel, checkpoint: Checkpoint) -> str:
    """Name a cause that many misshapen tensors may have in common: tokens of another width."""
    positions = checkpoint.tensors.get("predictor.pos_embedding")
    layout = model.layout
    if positions is None or positions.shape[-1] == layout.token_dim:
        return ""
    return (
        f"its predictor takes tokens {positions.shape[-1]} wide; here the encoder ({layout.visual_dim}), proprio "
        f"({layout.proprio_repeat} x {layout.proprio_dim}) and action embeddings ({layout.action_repeat} x "
        f"{layout.action_dim}) make {layout.token_dim}. Is it another encoder (encoder.name, or encoder.embed_dim, "
        "depth, num_heads for one that is not official), or another num_proprio_repeat or num_action_repeat? "
    )


def _differences(part: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    problems = [f"{part}.{name} is missing" for name in wanted if name not in found]
    problems += [f"{part}.{name} is unknown" for name in found if name not in wanted]
    problems += [f"{part}.{n} is not finite" for n in wanted if n in found and not is_finite(found[n])]
    return problems


def _fill(part: str, module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Load what is there, and say what does not fit; a module may adapt a state, as the ViT does to longer ones."""
    # a module without weights of its own takes the tensors themselves
    fitting = (
        {n: t.float() for n, t in state.items()} if (bare := any(p.is_meta for p in module.parameters())) else state
    )
    try:
        module.load_state_dict(fitting, strict=False, assign=bare)
    except RuntimeError as error:
        return [_misfit(part, line) for line in str(error).splitlines()[1:]]
    return []


def _misfit(part: str, line: str) -> str:
    """Shorten torch's sentence about a tensor of another shape."""
    found = re.search(r"size mismatch for (\S+): .*\((\[.*?\])\) from .*\((\[.*?\])\)", line)
    return f"{part}.{found[1]} has shape {found[2]} instead of {found[3]}" if found else f"{part}: {line.strip()}"
