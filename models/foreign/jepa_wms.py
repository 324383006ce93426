"""jepa-wms' ``<name>.pth.tar``: state dicts and an optimiser's state, and nothing about the architecture."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from models.foreign.contents import Contents
from models.foreign.facts import Facts
from models.foreign.inert_pickle import CheckpointError
from models.foreign.statistics import with_statistics
from models.foreign.translation import (
    MASK,
    VIT,
    Rules,
    Translation,
    architecture,
    encoder,
    image_size,
    renamed,
    required,
    settled_heads,
    vit,
)
from utils.reading.json_file import read_json

NAME = "jepa-wms"
STATISTICS = Path(__file__).with_suffix(".json")
FRAMES, WINDOW = 4, 2  # positions of a predictor, and how many of them their rollouts use
HEADS, INNER, ADALN_WIDTH, IMG_SIZE = 16, 1024, 400, 224  # of the published models

BLOCK, DRAWING = "predictor.predictor_blocks.0.norm1.weight", "model.decoder_embed.weight"
MODULATION = "predictor.predictor_blocks.0.adaLN_modulation.1.weight"

ENVIRONMENTS = {
    r"wall": ("wall", 2),
    r"pusht|pt": ("pusht", 2),
    r"pointmaze|mz": ("point_maze", 2),
    r"metaworld|mw": ("metaworld", 4),
    r"droid": ("droid", 7),
}
"""Words in the names of the published files -> environment, and the length of its raw actions."""

DINO_WM: Rules = {
    MASK.pattern: None,
    r"predictor\.(.+)": r"predictor.\1",
    r"(action|proprio)_encoder\.(patch_embed\.\w+)": r"\1_encoder.\2",
}
ADALN: Rules = {
    r"predictor\.predictor_embed\.(\w+)": r"predictor.embed.\1",
    r"predictor\.action_encoder\.(\w+)": r"action_encoder.patch_embed.\1",
    r"predictor\.predictor_blocks\.(\d+)\.(norm[12]|attn\.qkv|attn\.proj)\.(\w+)": r"predictor.blocks.\1.\2.\3",
    r"predictor\.predictor_blocks\.(\d+)\.mlp\.fc1\.(\w+)": r"predictor.blocks.\1.mlp.0.\2",
    r"predictor\.predictor_blocks\.(\d+)\.mlp\.fc2\.(\w+)": r"predictor.blocks.\1.mlp.2.\2",
    r"predictor\.predictor_blocks\.(\d+)\.adaLN_modulation\.1\.(\w+)": r"predictor.blocks.\1.modulation.1.\2",
    r"predictor\.predictor_norm\.(\w+)": r"predictor.norm.\1",
    r"predictor\.predictor_proj\.(\w+)": r"predictor.head.\1",
    r"proprio_encoder\.(patch_embed\.\w+)": r"proprio_encoder.\1",
}
ADALN_DIMS = {
    "action_encoder.patch_embed.weight": 2,
    "predictor.embed.weight": 2,
    "predictor.blocks.0.mlp.0.weight": 2,
}
"""Tensors that sizes are read off, and their dimensions."""


def recognises(contents: Contents) -> bool:
    """Whether a file is one of theirs: of the kinds that are read here, a V-JEPA 2-AC predictor or a decoder head."""
    names = contents.tensors
    wrapped = "opt" in contents.others
    is_dino_wm = wrapped and "predictor.transformer.layers.0.0.to_qkv.weight" in names
    return is_dino_wm or any(
        name in names for name in ("predictor.predictor_blocks.0.norm1.weight", "model.decoder_embed.weight")
    )


def translate(contents: Contents, facts: Facts) -> Translation:
    """Give it our names. Costs look at the proprio of all patches.

    Raises:
        CheckpointError: If it is of a kind that is not read here, or something is neither said nor known.
    """
    if "model.decoder_embed.weight" in contents.tensors:
        raise CheckpointError(
            f"{contents.path} is a decoder head of jepa-wms, which draws images and predicts nothing: not read here"
        )
    is_adaln = "predictor.predictor_blocks.0.norm1.weight" in contents.tensors
    if is_adaln and "predictor.predictor_blocks.0.adaLN_modulation.1.weight" not in contents.tensors:
        raise CheckpointError(
            f"{contents.path} is a predictor of V-JEPA 2-AC, whose video encoder this project has not: not read here"
        )
    env, length = _environment(contents.name)
    if env == "droid":
        raise CheckpointError(f"{contents.path} is a model of DROID, without proprio, which cannot be represented here")
    tensors = renamed(contents, ADALN if is_adaln else DINO_WM)
    required(contents, tensors, ADALN_DIMS if is_adaln else VIT)
    described = _adaln(contents, tensors, facts) if is_adaln else _dino_wm(contents, tensors, facts)
    inputs = tensors["action_encoder.patch_embed.weight"].shape[1]
    known: dict[str, Any] = {"env": {"name": env}, "frameskip": max(1, inputs // length)} if env else {}
    config = architecture(
        tensors,
        facts,
        described.pop("parts"),
        num_hist=facts.num_hist or WINDOW,
        proprio_per_patch=True,
        **described,
        **known,
    )
    return with_statistics(Translation(NAME, tensors, config), facts, _statistics().get(env), STATISTICS)


def _dino_wm(contents: Contents, tensors: Mapping[str, Tensor], facts: Facts) -> dict[str, Any]:
    """Describe ``dino_wm_*``: DINO-WM's predictor on images as they are."""
    _, positions, width = tensors["predictor.pos_embedding"].shape
    img_size = image_size(contents, facts, positions // FRAMES)
    embedded = sum(tensors[f"{part}_encoder.patch_embed.bias"].shape[0] for part in ("action", "proprio"))
    inner = tensors["predictor.transformer.layers.0.0.to_qkv.weight"].shape[0] // 3
    parts = {
        "encoder": encoder(contents, width - embedded),
        "predictor": vit(contents, tensors, facts, HEADS if inner == INNER else None),
    }
    return {"parts": parts, "img_size": img_size}


def _adaln(contents: Contents, tensors: dict[str, Tensor], facts: Facts) -> dict[str, Any]:
    """Describe ``jepa_wm_*``; the weight of its action embedding, a plain linear map, becomes a kernel of width 1."""
    weight = tensors["action_encoder.patch_embed.weight"]
    tensors["action_encoder.patch_embed.weight"] = weight[..., None]
    embed_dim, visual = tensors["predictor.embed.weight"].shape
    predictor = {
        "_target_": "models.networks.adaln.AdaLNPredictor",
        "embed_dim": embed_dim,
        "depth": len({name.split(".")[2] for name in tensors if name.startswith("predictor.blocks.")}),
        "heads": settled_heads(contents, facts, HEADS if len(weight) == ADALN_WIDTH else None, len(weight)),
        "mlp_ratio": tensors["predictor.blocks.0.mlp.0.weight"].shape[0] // len(weight),
    }
    parts = {"encoder": encoder(contents, visual, pixels="imagenet"), "predictor": predictor}
    return {"parts": parts, "img_size": facts.img_size or IMG_SIZE}


def _environment(name: str) -> tuple[str | None, int]:
    for words, found in ENVIRONMENTS.items():
        if re.search(rf"(?<![a-z])({words})(?![a-z])", name):
            return found
    return None, 2


@functools.cache
def _statistics() -> dict[str | None, Mapping[str, Any]]:
    return {env: found for env, found in read_json(STATISTICS, dict).items() if isinstance(found, Mapping)}
