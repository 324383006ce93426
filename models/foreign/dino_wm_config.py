"""Reading the ``hydra.yaml`` beside a DINO-WM checkpoint, as data."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Parts = Mapping[str, Mapping[str, Any]]
"""Part -> name -> a tensor, or whatever has its shape."""

ENV_ACTION_DIM = 2  # of all environments that DINO-WM checkpoints are published for
PATCH = 16  # pixels of the image per token
DIM_HEAD = 64  # the original's default, which the released configs leave out
ARCHITECTURE = {
    "num_hist": int,
    "num_pred": int,
    "frameskip": int,
    "img_size": int,
    "concat_dim": int,
    "action_emb_dim": int,
    "proprio_emb_dim": int,
    "num_action_repeat": int,
    "num_proprio_repeat": int,
    "has_predictor": bool,
    "has_decoder": bool,
    "normalize_action": bool,
    "env.name": str,
    "encoder.name": str,
    "encoder.feature_key": str,
}
PREDICTOR = {"depth": int, "heads": int, "mlp_dim": int}
PREDICTOR_OPTIONAL = {"dim_head": int, "dropout": float, "emb_dropout": float, "pool": str}


def translate_config(
    config: Mapping[str, Any], parts: Parts | None = None, source: str | Path = "hydra.yaml"
) -> dict[str, Any]:
    """Pick the architecture out of a model config, checked against the checkpoint's tensors where they tell.

    Args:
        config: From ``read_model_config``.
        parts: The state dicts of the checkpoint beside it; they settle what the config lacks.
        source: The config's file, for messages.

    Returns:
        ``num_hist``, ``num_pred``, ``frameskip``, ``img_size``, ``concat_dim``, ``action_emb_dim``,
        ``proprio_emb_dim``, ``num_action_repeat``, ``num_proprio_repeat``, ``has_predictor``, ``has_decoder``,
        ``normalize_action``, ``env`` (its name), and dicts of arguments without their ``_target_``: ``encoder``,
        ``predictor`` and ``decoder`` (each {} if absent), ``dataset`` (without its ``transform``).

    Raises:
        ValueError: If a key is missing and the tensors do not settle it, has the wrong type, or contradicts them.
    """
    parts = parts or {}
    shown = shown_by_tensors(config, parts, source)
    found = {key: _settle(config, key, kind, shown, source) for key, kind in ARCHITECTURE.items()}
    encoder = {key.partition(".")[2]: found.pop(key) for key in list(found) if key.startswith("encoder.")}
    found["env"] = found.pop("env.name")
    found["encoder"] = encoder
    found["predictor"] = _predictor(config, shown, source) if found["has_predictor"] else {}
    found["decoder"] = _arguments(config, "decoder") if found["has_decoder"] else {}
    found["dataset"] = _arguments(config, "env.dataset", without=("transform",))
    return found


def _predictor(config: Mapping[str, Any], shown: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    known = {*_arguments(config, "predictor"), *(key.removeprefix("predictor.") for key in shown)}
    keys = {**PREDICTOR, **{key: kind for key, kind in PREDICTOR_OPTIONAL.items() if key in known}}
    return {key: _settle(config, f"predictor.{key}", kind, shown, source) for key, kind in keys.items()}


def _arguments(config: Mapping[str, Any], key: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    group = _lookup(config, key)
    if not isinstance(group, Mapping):
        return {}
    kept = [name for name in group if not str(name).startswith("_") and name not in without]
    return {str(name): _lookup(config, f"{key}.{name}") for name in kept}


def _lookup(config: Mapping[str, Any], key: str, hops: int = 8) -> Any:
    """Look up the value at a dotted key, following plain ``${other.key}`` references; None if there is none."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    return _lookup(config, reference[1], hops - 1) if reference and hops else value


def _settle(config: Mapping[str, Any], key: str, kind: type, shown: Mapping[str, Any], source: str | Path) -> Any:
    value = _lookup(config, key)
    if value is None:
        if key not in shown:
            raise ValueError(f"{source} lacks {key}, and the checkpoint's tensors do not settle it; add it to the file")
        return shown[key]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{source}: {key} must be of type {kind.__name__}, got {value!r}")
    if key in shown and shown[key] != value:
        if kind is bool:  # what the file holds is a fact, whatever the config intended
            log.warning("%s says %s: %s, the checkpoint beside it says %s", source, key, value, shown[key])
            return shown[key]
        if key == "num_hist" and isinstance(value, int) and 0 < value < shown[key]:
            log.warning(
                "%s says num_hist: %s, the checkpoint beside it has positions for %s frames: the first are used",
                *(source, value, shown[key]),
            )
            return value
        raise ValueError(f"{source} says {key}: {value}, but the checkpoint beside it was built with {shown[key]}")
    return value


def shown_by_tensors(config: Mapping[str, Any], parts: Parts, source: str | Path = "hydra.yaml") -> dict[str, Any]:
    """Read architecture values, by their keys in ``config``, that follow from the tensors' shapes.

    Raises:
        ValueError: If what the config says of the image size or the heads cannot be true of these tensors.
    """
    if not parts:
        return {}
    shown = {"has_predictor": "predictor" in parts, "has_decoder": "decoder" in parts} | shown_by_embeddings(parts)
    positions = _shape(parts, "predictor", "pos_embedding", 3)
    if positions and "action_emb_dim" in shown and "proprio_emb_dim" in shown:
        # tokens of their own are as wide as the visual ones; else these widths add up
        shown["concat_dim"] = 0 if shown["action_emb_dim"] == shown["proprio_emb_dim"] == positions[2] else 1
    if positions:
        shown |= _frames(config, positions[1], shown, source)
    qkv = _shape(parts, "predictor", "transformer.layers.0.0.to_qkv.weight", 2)
    hidden = _shape(parts, "predictor", "transformer.layers.0.1.net.1.weight", 2)
    if qkv and hidden:
        layers = {name.split(".")[2] for name in parts["predictor"] if name.startswith("transformer.layers.")}
        shown |= {"predictor.depth": len(layers), "predictor.mlp_dim": hidden[0]}
        shown |= _heads(config, qkv[0] // 3, source)
    return shown


def shown_by_embeddings(parts: Parts, env_action_dim: int = ENV_ACTION_DIM) -> dict[str, Any]:
    """Read architecture values from the shapes of the action and proprio encoders.

    Args:
        parts: Tensors of each part.
        env_action_dim: Length of a raw action of the environment.
    """
    action = _shape(parts, "action_encoder", "patch_embed.weight", 3)
    proprio = _shape(parts, "proprio_encoder", "patch_embed.weight", 3)
    shown = {"action_emb_dim": action[0], "frameskip": action[1] // env_action_dim} if action else {}
    return shown | ({"proprio_emb_dim": proprio[0]} if proprio else {})


def _frames(config: Mapping[str, Any], positions: int, shown: Mapping[str, Any], source: str | Path) -> dict[str, Any]:
    """Settle history and image size; the tensors show only their product: (img_size / 16)^2 tokens for each frame."""
    img_size, num_hist = _lookup(config, "img_size"), _lookup(config, "num_hist")
    extra = 2 * (shown.get("concat_dim", _lookup(config, "concat_dim")) == 0)
    if type(num_hist) is int and num_hist > 0:
        side = isqrt(max(0, positions // num_hist - extra))
        if (side**2 + extra) * num_hist == positions and side > 0:
            if type(img_size) is int and img_size // PATCH != side:
                raise ValueError(
                    f"{source} says img_size: {img_size}, but the checkpoint beside it was built with {side * PATCH} "
                    f"({positions} positions for num_hist: {num_hist})"
                )
            return {"num_hist": num_hist} if type(img_size) is int else {"num_hist": num_hist, "img_size": side * PATCH}
    if type(img_size) is not int or img_size < PATCH:
        return {}
    tokens = (img_size // PATCH) ** 2 + extra
    if positions % tokens:
        raise ValueError(
            f"{source} says img_size: {img_size}, which makes {tokens} tokens a frame, but the checkpoint beside it "
            f"has {positions} positions"
        )
    return {"num_hist": positions // tokens}


def _heads(config: Mapping[str, Any], inner: int, source: str | Path) -> dict[str, int]:
    """Settle heads and their width; the tensors show only their product."""
    heads, dim_head = _lookup(config, "predictor.heads"), _lookup(config, "predictor.dim_head")
    said = [value for value in (heads, dim_head) if type(value) is int and value > 0]
    width = dim_head if type(dim_head) is int and dim_head > 0 else DIM_HEAD
    if len(said) == 2 and heads * dim_head != inner:
        raise ValueError(
            f"{source} says predictor.heads: {heads} and predictor.dim_head: {dim_head}, {heads * dim_head} in all, "
            f"but the checkpoint beside it was built with {inner}"
        )
    return {"predictor.heads": inner // width, "predictor.dim_head": width}


def _shape(parts: Parts, part: str, name: str, num_dims: int) -> tuple[int, ...] | None:
    """Return the shape of a tensor; None if there is no such tensor or it has another number of dimensions."""
    value = parts.get(part, {}).get(name)
    return tuple(value.shape) if value is not None and len(value.shape) == num_dims else None
