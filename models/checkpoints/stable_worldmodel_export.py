"""A model as stable-worldmodel's PreJEPA keeps its own: ``weights.pt`` and ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from models.architecture import Architecture
from models.checkpoints.compatible import STABLE, check_computes
from models.checkpoints.native import Checkpoint
from models.checkpoints.stored_architecture import stored_architecture
from models.foreign.dino_wm import WITHOUT_EFFECT, CheckpointError
from models.foreign.dinov2_names import to_transformers
from models.foreign.dinov2_weights import ARCHITECTURES, find_weights, read_weights
from models.foreign.stable_worldmodel import STATISTICS
from models.foreign.translation import PATCH
from models.networks.dinov2_vit import DinoVisionTransformer


def stable_worldmodel_config(architecture: Architecture, visual: int, sizes: Mapping[str, tuple[int, int]]) -> str:
    """Write the ``config.json`` beside their weights.

    Args:
        architecture: Of the model.
        visual: D.
        sizes: "proprio" and "action" -> inputs and outputs of the embedding.
    """
    names = {384: "dinov2_small", 768: "dinov2_base", 1024: "dinov2_large"}
    side, settings = architecture.img_size // PATCH, architecture.predictor.settings
    module = "stable_worldmodel.wm.prejepa.module"
    config = {
        "_target_": "stable_worldmodel.wm.PreJEPA",
        "history_size": architecture.num_hist,
        "num_pred": 1,
        "interpolate_pos_encoding": True,
        "encoder": {"_target_": f"{module}.create_backbone", "name": names.get(visual, "dinov2_small")},
        "predictor": {
            "_target_": f"{module}.CausalPredictor",
            "num_patches": side * side,
            "num_frames": architecture.num_hist,
            "dim": visual + sum(width for _, width in sizes.values()),
            **{key: settings[key] for key in ("depth", "heads", "mlp_dim")},
            "dim_head": settings.get("dim_head", 64),
            "dropout": settings.get("dropout", 0.0),
            "emb_dropout": settings.get("emb_dropout", 0.0),
        },
        "extra_encoders": {
            "_target_": "torch.nn.ModuleDict",
            "modules": {
                key: {"_target_": f"{module}.Embedder", "in_chans": inputs, "emb_dim": width}
                for key, (inputs, width) in sizes.items()
            },
        },
    }
    return json.dumps(config, indent=2) + "\n"


def stable_worldmodel_files(checkpoint: Checkpoint, generation: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Make stable-worldmodel's files: the state dict, and texts by file name.

    Args:
        checkpoint: Of a model that computes what theirs do.
        generation: Of transformers, whose names the encoder gets: 4 or 5.

    Raises:
        CheckpointError: If it computes something else, or its encoder's weights are not to be had.
    """
    architecture = stored_architecture(checkpoint)
    check_computes(architecture, STABLE, "stable-worldmodel")
    tensors = {name: t for name, t in checkpoint.tensors.items() if not WITHOUT_EFFECT.fullmatch(name)}
    if (architecture.concat_dim, architecture.num_proprio_repeat, architecture.num_action_repeat) != (1, 1, 1):
        raise CheckpointError("stable-worldmodel has concat_dim=1 and repeats no embeddings, this model differs")
    weights = {part: tensors[f"{part}_encoder.patch_embed.weight"] for part in ("proprio", "action")}
    sizes = {part: (weight.shape[1], weight.shape[0]) for part, weight in weights.items()}
    backbone = _encoder(checkpoint, architecture)
    visual = backbone["cls_token"].shape[-1]
    state = {f"backbone.{name}": tensor for name, tensor in to_transformers(backbone, generation).items()}
    state |= {name: tensor for name, tensor in tensors.items() if name.startswith("predictor.")}
    patches = (architecture.img_size // PATCH) ** 2
    state["predictor.pos_embedding"] = state["predictor.pos_embedding"][:, : architecture.num_hist * patches].clone()
    frame = torch.arange(architecture.num_hist).repeat_interleave(patches)
    mask = (frame[:, None] >= frame)[None, None].float()
    for layer in range(architecture.predictor.settings["depth"]):
        state[f"predictor.transformer.layers.{layer}.0.bias"] = mask.clone()
    for part in sizes:
        for key in ("weight", "bias"):
            state[f"extra_encoders.{part}.patch_embed.{key}"] = tensors[f"{part}_encoder.patch_embed.{key}"]
    texts = {"config.json": stable_worldmodel_config(architecture, visual, sizes)}
    if units := checkpoint.about.get("normalizer") or checkpoint.about.get("statistics"):
        groups = {part: {key: units[f"{part}_{key}"] for key in ("mean", "std")} for part in ("action", "proprio")}
        texts[STATISTICS] = json.dumps(groups, indent=2) + "\n"
    return state, texts


def _encoder(checkpoint: Checkpoint, architecture: Architecture) -> dict[str, Tensor]:
    """Return the tensors of the encoder by their official names, out of the checkpoint or the encoder's own file."""
    prefix, settings = "encoder.base_model.", architecture.encoder.settings
    if found := {n.removeprefix(prefix): t for n, t in checkpoint.tensors.items() if n.startswith(prefix)}:
        return found
    official = ARCHITECTURES[settings["name"]]
    width, depth, heads = (settings.get(key) or size for key, size in vars(official).items())
    with torch.device("meta"):
        expected = DinoVisionTransformer(width, depth, heads, PATCH, 4.0).state_dict()
    return read_weights(
        find_weights(settings["name"], settings.get("weights"), may_download=False), settings["name"], expected
    )
