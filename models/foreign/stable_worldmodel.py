"""stable-worldmodel's PreJEPA: ``weights.pt`` and ``config.json``, with the encoder by the names of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.foreign.contents import Contents
from models.foreign.dinov2_names import from_transformers
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
    vit,
)
from utils.reading.json_file import read_json
from utils.reading.opening import FileError

NAME = "stable-worldmodel"
STATISTICS = "norm_stats.json"
RULES: Rules = {
    MASK.pattern: None,
    r"predictor\.(.+)": r"predictor.\1",
    r"extra_encoders\.(action|proprio)\.patch_embed\.(weight|bias)": r"\1_encoder.patch_embed.\2",
    r"backbone\.(.+)": r"encoder.base_model.\1",
}


def recognises(contents: Contents) -> bool:
    """Whether a file has this layout."""
    return {"backbone.embeddings.position_embeddings", "predictor.pos_embedding"} <= contents.tensors.keys()


def translate(contents: Contents, facts: Facts) -> Translation:
    """Give it our names; no ``_target_`` of its config is looked at.

    Raises:
        CheckpointError: If something has no counterpart here, or is neither said nor known.
    """
    tensors = renamed(contents, RULES)
    prefix = "encoder.base_model."
    required(contents, tensors, VIT | {f"{prefix}embeddings.cls_token": 3})
    backbone = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    tensors = {n: t for n, t in tensors.items() if not n.startswith(prefix)}
    try:
        tensors |= {prefix + name: tensor for name, tensor in from_transformers(backbone, torch.cat).items()}
    except RuntimeError:
        raise CheckpointError(f"{contents.path}: queries, keys and values of its encoder differ in shape") from None
    visual = backbone["embeddings.cls_token"].shape[-1]
    tensors |= _reordered(contents, tensors, visual)
    if contents.config.get("interpolate_pos_encoding") is False:
        raise CheckpointError(f"{contents.path}: interpolate_pos_encoding=false is not supported here")
    said = _numbers(contents, "predictor")
    num_hist = facts.num_hist or _number(contents.config.get("history_size")) or said.get("num_frames")
    positions = tensors["predictor.pos_embedding"].shape[1]
    frames = said.get("num_frames") or num_hist
    if not num_hist or not frames:
        raise CheckpointError(
            f"{contents.path} has no config.json beside it that says the history: set foreign.num_hist"
        )
    img_size = image_size(contents, facts, positions // frames)
    depth = len({name.split(".")[2] for name in backbone if name.startswith("encoder.layer.")})
    parts = {
        # an encoder that differs from the official one is in the file, by whatever weights it was built with
        "encoder": encoder(contents, visual, weights="random", pixels="imagenet", positions="transformers"),
        "predictor": vit(contents, tensors, facts, said.get("heads")) | _dropout(contents),
    }
    if said.get("dim_head", width := parts["predictor"]["dim_head"]) != width:
        raise CheckpointError(
            f"{contents.path}: heads of {said['dim_head']} as its config.json says would be {width} wide; its weights "
            "are those of another predictor"
        )
    if parts["encoder"]["embed_dim"] is not None:
        parts["encoder"]["depth"] = depth
    config = architecture(tensors, facts, parts, img_size=img_size, num_hist=num_hist)
    source = contents.path.parent / STATISTICS
    return with_statistics(Translation(NAME, tensors, config), facts, _stored_statistics(source), source)


def _reordered(contents: Contents, tensors: Mapping[str, Tensor], visual: int) -> dict[str, Tensor]:
    """Return the predictor's tensors for tokens in our order: visual, proprio, action.

    Theirs is that of the encoders in the config. A transformer does not mind the order of its channels.
    """
    modules: Any = _group(contents.config, "extra_encoders").get("modules")
    order = list(modules) if isinstance(modules, Mapping) else ["proprio", "action"]
    if sorted(order) != ["action", "proprio"]:
        raise CheckpointError(
            f"{contents.path} has the inputs {', '.join(map(str, order))}; those read here are proprio and action"
        )
    if order == ["proprio", "action"]:
        return {}
    sizes = [tensors[f"{part}_encoder.patch_embed.bias"].shape[0] for part in ("action", "proprio")]
    first, second = visual + sizes[0], visual + sum(sizes)
    taken = torch.tensor([*range(visual), *range(first, second), *range(visual, first)])
    axes = {name: axis for name in tensors if (axis := _token_axis(name)) is not None}
    for name, axis in axes.items():
        shape = tuple(tensors[name].shape)
        if len(shape) <= axis or shape[axis] != second:
            raise CheckpointError(f"{contents.path}: {name} has shape {shape}, its tokens are {second} wide")
    return {n: tensors[n] if tensors[n].is_meta else tensors[n].index_select(axis, taken) for n, axis in axes.items()}


def _token_axis(name: str) -> int | None:
    """Along which the channels of tokens lie in a tensor of the predictor; None: they do not."""
    if not name.startswith("predictor."):
        return None
    if name.endswith(("pos_embedding",)):
        return 2
    if name.endswith(("to_qkv.weight", "1.net.1.weight")):
        return 1
    return None if name.endswith("1.net.1.bias") else 0


def _stored_statistics(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return read_json(path, dict)
    except (FileError, OSError) as error:
        raise CheckpointError(str(error)) from None


def _group(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = config.get(name)
    return group if isinstance(group, Mapping) else {}


def _dropout(contents: Contents) -> dict[str, float]:
    said = _group(contents.config, "predictor")
    usable = {key: said[key] for key in ("dropout", "emb_dropout") if type(said.get(key)) in (int, float)}
    return {key: float(value) for key, value in usable.items() if 0 <= value < 1}


def _numbers(contents: Contents, group: str) -> dict[str, int]:
    return {key: each for key, each in _group(contents.config, group).items() if _number(each)}


def _number(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 10**6 else None
