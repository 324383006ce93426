"""What an adapter makes of a file of another program: tensors and an architecture by our names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

from torch import Tensor

from models.foreign.contents import Contents
from models.foreign.dinov2_weights import ARCHITECTURES, WIDTHS
from models.foreign.facts import Facts
from models.foreign.inert_pickle import CheckpointError

ENV_ACTION_DIM = 2  # of PushT, the mazes and the wall
PATCH = 14  # pixels of the image per token, where images are taken as they are
MOST_NAMES = 8
DECODER = {"_target_": "models.networks.vqvae.VQVAE"}  # an architecture names one even where it has none
MASK = re.compile(r"predictor\.transformer\.layers\.\d+\.0\.bias")
"""The causal mask, which some programs save."""

VIT = {
    "predictor.pos_embedding": 3,
    "predictor.transformer.layers.0.0.to_qkv.weight": 2,
    "predictor.transformer.layers.0.1.net.1.weight": 2,
}
"""Tensors that the sizes of DINO-WM's predictor are read off, and their dimensions."""
EMBEDDINGS = {
    f"{part}_encoder.patch_embed.{key}": dims
    for key, dims in {"weight": 3, "bias": 1}.items()
    for part in ("proprio", "action")
}

Rules = Mapping[str, str | None]
"""Pattern of a whole name in the file -> our name; None leaves the tensor out."""


@dataclass(frozen=True)
class Translation:
    """A checkpoint by our names.

    Attributes:
        layout: What the file's layout is called.
        tensors: "part.name" -> tensor.
        config: As our own ``hydra.yaml`` beside it would be.
        statistics: Of raw actions and proprio, as ``about["statistics"]`` of a checkpoint; {} if the file has none.
        about: What else the file says of itself, see ``Checkpoint.about``.
    """

    layout: str
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    statistics: dict[str, list[float]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


def renamed(contents: Contents, rules: Rules) -> dict[str, Tensor]:
    """Give tensors our names.

    Raises:
        CheckpointError: If there are some that no rule is for: what they do would be missing without a word.
    """
    found, unknown = {}, []
    for name, tensor in contents.tensors.items():
        match = next((m for pattern in rules if (m := re.fullmatch(pattern, name))), None)
        if match is None:
            unknown.append(name)
        elif (ours := rules[match.re.pattern]) is not None:
            found[match.expand(ours)] = tensor
    if unknown:
        more = f" and {len(unknown) - MOST_NAMES} more" if len(unknown) > MOST_NAMES else ""
        raise CheckpointError(
            f"{contents.path} has {', '.join(unknown[:MOST_NAMES])}{more}, which this project has no counterpart of"
        )
    return found


def required(contents: Contents, tensors: Mapping[str, Tensor], dims: Mapping[str, int]) -> None:
    """Refuse a file without these tensors, by our names, and the embeddings: a model's sizes are read off them.

    Args:
        contents: The file.
        tensors: By our names.
        dims: Name -> dimensions; of an embedding's weight, if it has not the usual three.

    Raises:
        CheckpointError: Naming the first that is missing or has another shape.
    """
    for name, count in {**EMBEDDINGS, **dims}.items():
        if name not in tensors:
            reason = " (models without proprio cannot be represented here)" if name.startswith("proprio") else ""
            raise CheckpointError(f"{contents.path} has no {name}{reason}")
        shape = tuple(tensors[name].shape)
        if len(shape) != count or 0 in shape:
            raise CheckpointError(f"{contents.path}: {name} has shape {shape}, expected are {count} dimensions")
    for part in ("proprio", "action"):
        rows, biases = (len(tensors[f"{part}_encoder.patch_embed.{key}"]) for key in ("weight", "bias"))
        if rows != biases:
            raise CheckpointError(f"{contents.path}: {part}_encoder.patch_embed has {rows} outputs and {biases} biases")


def encoder(contents: Contents, width: int, **arguments: Any) -> dict[str, Any]:
    """Describe a DINOv2 whose features are ``width`` wide; depth and heads of an unusual one stay open."""
    if width < 1:
        raise CheckpointError(f"{contents.path}: its tokens have no room for features of an encoder")
    name = WIDTHS.get(width, "dinov2_vits14")
    if name not in ARCHITECTURES:
        raise CheckpointError(f"{contents.path} was built on {name}, which this project has not")
    return {
        "_target_": "models.networks.dinov2.DinoV2Encoder",
        "name": name,
        "weights": None,
        "embed_dim": None if width in WIDTHS else width,
        "depth": None,
        "num_heads": None,
        "pixels_per_patch": PATCH,
        **arguments,
    }


def vit(contents: Contents, tensors: Mapping[str, Tensor], facts: Facts, heads: int | None = None) -> dict[str, Any]:
    """Describe DINO-WM's predictor by its tensors.

    Args:
        contents: The file.
        tensors: By our names.
        facts: What the user says.
        heads: What the file or a table says.

    Raises:
        CheckpointError: If nobody says how many heads it has, or what is said cannot be.
    """
    inner = tensors["predictor.transformer.layers.0.0.to_qkv.weight"].shape[0] // 3
    heads = settled_heads(contents, facts, heads, inner)
    layers = {name.split(".")[3] for name in tensors if name.startswith("predictor.transformer.layers.")}
    return {
        "_target_": "models.networks.vit.ViTPredictor",
        "depth": len(layers),
        "heads": heads,
        "dim_head": inner // heads,
        "mlp_dim": tensors["predictor.transformer.layers.0.1.net.1.weight"].shape[0],
    }


def settled_heads(contents: Contents, facts: Facts, known: int | None, inner: int) -> int:
    """Settle the number of heads whose widths add up to ``inner``.

    Raises:
        CheckpointError: As ``vit``.
    """
    heads = facts.heads or known
    if heads is None:
        raise CheckpointError(f"{contents.path} does not say how many heads its predictor has: set foreign.heads=...")
    if inner % heads:
        raise CheckpointError(f"{contents.path}: {heads} heads cannot share a width of {inner}; correct foreign.heads")
    return heads


def image_size(contents: Contents, facts: Facts, patches: int) -> int:
    """Return the side of the images whose ``patches`` form a square: what the user says, or as the patches have it.

    Raises:
        CheckpointError: If they form none, or not that of such images.
    """
    side = isqrt(patches)
    if side**2 != patches or not side:
        raise CheckpointError(f"{contents.path}: {patches} patches a frame form no square; set foreign.num_hist")
    if facts.img_size is not None and facts.img_size // PATCH != side:
        raise CheckpointError(
            f"foreign.img_size={facts.img_size} makes {facts.img_size // PATCH} patches a side, {contents.path} has "
            f"{side}"
        )
    return facts.img_size or PATCH * side


def architecture(
    tensors: Mapping[str, Tensor], facts: Facts, parts: Mapping[str, dict[str, Any]], **values: Any
) -> dict[str, Any]:
    """Describe a world model as our ``hydra.yaml`` does.

    Args:
        tensors: By our names, with action and proprio encoder.
        facts: What the user says.
        parts: ``encoder``, ``predictor``, and others that are not the usual ones.
        values: ``img_size``, ``num_hist``, and others that are not the usual ones.
    """
    action, proprio = (tensors[f"{part}_encoder.patch_embed.weight"] for part in ("action", "proprio"))
    frameskip = facts.frameskip or values.pop("frameskip", None) or max(1, action.shape[1] // ENV_ACTION_DIM)
    if action.shape[1] % frameskip:
        raise CheckpointError(f"a block of {action.shape[1]} numbers is not {frameskip} actions: set foreign.frameskip")
    env = {"env_action_dim": action.shape[1] // frameskip, **values.pop("env", {})}
    embedding = {"_target_": "models.networks.proprio.ProprioceptiveEmbedding"}
    return {
        "num_pred": 1,
        "frameskip": frameskip,
        "concat_dim": 1,
        "action_emb_dim": action.shape[0],
        "proprio_emb_dim": proprio.shape[0],
        "num_action_repeat": 1,
        "num_proprio_repeat": 1,
        "has_predictor": True,
        "has_decoder": False,
        "proprio_per_patch": False,
        "env": env,
        "action_encoder": embedding,
        "proprio_encoder": embedding,
        "decoder": DECODER,
        **values,
        **parts,
    }
