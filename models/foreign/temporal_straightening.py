"""Temporal-straightening's model directories: DINO-WM's, with a projector and a LayerNorm behind each embedding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from models.foreign.contents import Contents
from models.foreign.dino_wm import WITHOUT_EFFECT
from models.foreign.dino_wm_config import translate_config
from models.foreign.facts import Facts
from models.foreign.inert_pickle import CheckpointError
from models.foreign.translation import VIT, Rules, Translation, architecture, encoder, renamed, required

NAME = "temporal-straightening"
ONLY_TRAINED = r"encoder\.(agg_mlp|agg_post_norm)\..+|encoder\.projector\.batch_norm_layers\..+"
"""What only the curvature loss uses, and norms that are switched off."""
RULES: Rules = {
    WITHOUT_EFFECT.pattern: None,
    ONLY_TRAINED: None,
    r"encoder\.base_model\.(.+)": r"encoder.base_model.\1",
    r"encoder\.projector\.conv_layers\.(\d+)\.(\w+)": r"projector.convolutions.\1.\2",
    r"encoder\.projector\.layer_norm_layers\.(\d+)\.(\w+)": r"projector.norms.\1.\2",
    r"decoder\.proj_decoder\.deconv_layers\.(\d+)\.(\w+)": r"decoder.widening.\1.\2",
    r"decoder\.(.+)": r"decoder.\1",
    r"predictor\.(.+)": r"predictor.\1",
    r"(action|proprio)_encoder\.(patch_embed|norm)\.(\w+)": r"\1_encoder.\2.\3",
}


def recognises(names: Iterable[str]) -> bool:
    """Whether the tensors of a DINO-WM pickle are of this kind: DINO-WM itself would compute something else of them."""
    return any(re.match(r"encoder\.projector\.|(action|proprio)_encoder\.norm\.", name) for name in names)


def translate(contents: Contents) -> Translation:
    """Give a model directory's weights our names.

    Args:
        contents: Of the pickle, with the directory's ``hydra.yaml`` as its config.

    Raises:
        CheckpointError: If something has no counterpart here.
        ValueError: If the config lacks a key or contradicts the tensors.
    """
    kind = _lookup(contents.config, "encoder", "projector")
    if kind not in ("channel", None):
        raise CheckpointError(f"{contents.path} has encoder.projector={kind}; of theirs, channel is read here")
    tensors = renamed(contents, RULES)
    required(contents, tensors, VIT | {"encoder.base_model.cls_token": 3})
    found = translate_config(contents.config, _by_part(tensors), contents.path.parent.parent / "hydra.yaml")
    width = tensors["encoder.base_model.cls_token"].shape[-1]
    blocks = {name.split(".")[3] for name in tensors if name.startswith("encoder.base_model.blocks.")}
    parts: dict[str, Any] = {
        "encoder": encoder(contents, width, weights="random", pixels_per_patch=16),
        "predictor": {"_target_": "models.networks.vit.ViTPredictor", **_known(found["predictor"], PREDICTOR)},
    }
    parts["encoder"]["depth"] = len(blocks) if parts["encoder"]["embed_dim"] else None
    if any(name.startswith("projector.") for name in tensors):
        parts["projector"] = _projector(contents, tensors)
    if found["has_decoder"]:
        parts["decoder"] = _decoder(tensors, found["decoder"])
    for part in ("action", "proprio"):
        normed = f"{part}_encoder.norm.weight" in tensors
        parts[f"{part}_encoder"] = {
            "_target_": "models.networks.proprio.ProprioceptiveEmbedding",
            "use_layernorm": normed,
        }
    values = {key: found[key] for key in (*KEPT, "normalize_action")} | {"env": {"name": found["env"]}}
    return Translation(NAME, tensors, architecture(tensors, Facts(), parts, **values))


KEPT = ("img_size", "num_hist", "frameskip", "concat_dim", "num_action_repeat", "num_proprio_repeat", "has_decoder")
PREDICTOR = ("depth", "heads", "mlp_dim", "dim_head", "dropout", "emb_dropout", "pool")
DECODER = ("channel", "n_embed", "n_res_block", "n_res_channel", "quantize")


def _projector(contents: Contents, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe the channel projector.

    Raises:
        CheckpointError: If its norms are not LayerNorms, or its convolutions are not all alike.
    """
    said: Any = _lookup(contents.config, "encoder", "projector_config")
    layers: Any = _lookup(contents.config, "encoder", "projector_config", "conv_layers")
    norm = said.get("norm_type", "layer") if isinstance(said, Mapping) else "layer"
    names = sorted(name for name in tensors if re.fullmatch(r"projector\.convolutions\.\d+\.weight", name))
    shapes = [tuple(tensors[name].shape) for name in names]
    alike = len({shape[2:] for shape in shapes}) == 1 and len({shape[0] for shape in shapes[:-1]}) <= 1
    usable = norm == "layer" and alike and len(shapes[0]) == 4
    kept = {"stride": 1, "padding": shapes[0][2] // 2} if usable else {}
    said = [layer for layer in layers if isinstance(layer, Mapping)] if isinstance(layers, list) else []
    odd = [f", {key} {layer[key]}" for layer in said for key, ours in kept.items() if layer.get(key, ours) != ours]
    if odd or not usable:
        raise CheckpointError(
            f"{contents.path}: its projector has norm_type={norm} and kernels {shapes}{''.join(odd)}; read here are "
            "equal convolutions that keep the grid of patches, each with a LayerNorm"
        )
    return {
        "_target_": "models.networks.projector.ChannelProjector",
        "hidden": shapes[0][0],
        "emb_dim": shapes[-1][0],
        "kernel": shapes[0][2],
        "depth": len(shapes),
    }


def _decoder(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the decoder, whose first layers invert the projector's widths."""
    names = sorted(name for name in tensors if re.fullmatch(r"decoder\.widening\.\d+\.weight", name))
    widths = [tensors[name].shape[1] for name in names] or None
    return {"_target_": "models.networks.vqvae.VQVAE", **_known(said, DECODER), "widths": widths}


def _known(arguments: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name in names}


def _by_part(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        part, _, name = full.partition(".")
        parts.setdefault(part, {})[name] = tensor
    return parts


def _lookup(config: Mapping[str, Any], *keys: str) -> Any:
    value: Any = config
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
