"""torch_world's DINO-WM: ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from models.foreign.contents import Contents
from models.foreign.facts import Facts
from models.foreign.statistics import with_statistics
from models.foreign.translation import (
    VIT,
    Rules,
    Translation,
    architecture,
    encoder,
    image_size,
    renamed,
    required,
    vit,
)

NAME = "torch_world"
NUM_HIST, DIM_HEAD = 3, 64  # of the published model
RULES: Rules = {
    r"pos_embed": "predictor.pos_embedding",
    r"(action|proprio)_encoder\.(weight|bias)": r"\1_encoder.patch_embed.\2",
    r"predictor\.blocks\.(\d+)\.norm1\.(\w+)": r"predictor.transformer.layers.\1.0.norm.\2",
    r"predictor\.blocks\.(\d+)\.attn\.qkv\.weight": r"predictor.transformer.layers.\1.0.to_qkv.weight",
    r"predictor\.blocks\.(\d+)\.attn\.proj\.(\w+)": r"predictor.transformer.layers.\1.0.to_out.0.\2",
    r"predictor\.blocks\.(\d+)\.norm2\.(\w+)": r"predictor.transformer.layers.\1.1.net.0.\2",
    r"predictor\.blocks\.(\d+)\.mlp\.0\.(\w+)": r"predictor.transformer.layers.\1.1.net.1.\2",
    r"predictor\.blocks\.(\d+)\.mlp\.[23]\.(\w+)": r"predictor.transformer.layers.\1.1.net.4.\2",
    r"predictor\.norm\.(\w+)": r"predictor.transformer.norm.\1",
    r"encoder\.model\.(.+)": r"encoder.base_model.\1",
}


def recognises(contents: Contents) -> bool:
    """Whether a file has this layout."""
    action = contents.tensors.get("action_encoder.weight")
    names = {"pos_embed", "predictor.blocks.0.attn.qkv.weight"}
    return names <= contents.tensors.keys() and action is not None and action.ndim == 2


def translate(contents: Contents, facts: Facts) -> Translation:
    """Give it our names. Its LayerNorms have another eps, and its cost looks at the proprio of all patches.

    Raises:
        CheckpointError: If something has no counterpart here, or is neither said nor known.
    """
    tensors = renamed(contents, RULES)
    required(contents, tensors, VIT | {f"{part}_encoder.patch_embed.weight": 2 for part in ("proprio", "action")})
    for part in ("action", "proprio"):
        tensors[f"{part}_encoder.patch_embed.weight"] = tensors[f"{part}_encoder.patch_embed.weight"][..., None]
    num_hist = facts.num_hist or NUM_HIST
    positions = tensors["predictor.pos_embedding"]
    img_size = image_size(contents, facts, positions.shape[1] // num_hist)
    has_encoder = any(name.startswith("encoder.") for name in tensors)
    visual = positions.shape[2] - sum(
        tensors[f"{part}_encoder.patch_embed.bias"].shape[0] for part in ("action", "proprio")
    )
    parts = {
        "encoder": encoder(contents, visual, pixels="imagenet", **({"weights": "random"} if has_encoder else {})),
        "predictor": vit(contents, tensors, facts, _known_heads(tensors)) | {"norm_eps": 1e-6},
    }
    config = architecture(tensors, facts, parts, img_size=img_size, num_hist=num_hist, proprio_per_patch=True)
    stored: Any = contents.config.get("normalization")
    found = stored if isinstance(stored, Mapping) else None
    return with_statistics(Translation(NAME, tensors, config), facts, found, contents.path.parent / "config.json")


def _known_heads(tensors: Mapping[str, Tensor]) -> int | None:
    inner = tensors["predictor.transformer.layers.0.0.to_qkv.weight"].shape[0] // 3
    return 16 if inner == 16 * DIM_HEAD else None
