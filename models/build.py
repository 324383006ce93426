"""Building a world model from an architecture."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class

from models.architecture import Architecture
from models.interfaces import Decoder, Encoder, Projector
from models.tokens import TokenLayout, token_layout
from models.world_model import WorldModel
from utils.machine import as_size, available_memory
from utils.schema import Component

T = TypeVar("T")
SURELY_SMALL = 10**7
"""Weights of a layer, roughly, times layers: below, it is not worth the time to count them."""


def build_world_model(
    architecture: Architecture,
    env_action_dim: int,
    proprio_dim: int,
    state_dim: int,
    without_weights: Collection[str] = (),
) -> WorldModel:
    """Build the networks with fresh weights.

    Args:
        architecture: Sizes, and the networks that the model shall have.
        env_action_dim: Length of one raw action.
        proprio_dim: Length of the proprio.
        state_dim: Length of the simulator's state.
        without_weights: Those among "predictor" and "decoder" whose weights are about to be loaded: they get none,
            which saves the time and the memory of drawing them.

    Raises:
        ValueError: If a value is not supported; the message names the key.
    """
    _check(architecture)
    encoder = _part(architecture.encoder, {"img_size": architecture.img_size, "state_dim": state_dim})
    projector = _projector(architecture, encoder)
    layout = _token_layout(architecture, projector or encoder)
    networks: dict[str, Any] = {"encoder": encoder, "projector": projector}
    grid = encoder.grid if projector is None or projector.num_patches == encoder.num_patches else None
    for part, sizes in _sizes(architecture, layout, grid, env_action_dim, proprio_dim).items():
        networks[part] = None
        described: Component[Any] | None = getattr(architecture, part)
        if described is not None and getattr(architecture, f"has_{part}", True):
            _check_memory(part, described, sizes)
            with torch.device("meta") if part in without_weights else contextlib.nullcontext():
                networks[part] = _part(described, sizes)
    if projector is not None and networks["decoder"] is not None:
        _check_drawn(networks["decoder"], architecture.img_size, projector.num_patches)
    return WorldModel(**networks, layout=layout, num_hist=architecture.num_hist)


def _projector(architecture: Architecture, encoder: Encoder) -> Projector | None:
    if architecture.projector is None:
        return None
    sizes = {"in_dim": encoder.emb_dim, "num_patches": encoder.num_patches, "grid": encoder.grid}
    _check_memory("projector", architecture.projector, sizes)
    return _part(architecture.projector, sizes)


def _token_layout(architecture: Architecture, source: Encoder | Projector) -> TokenLayout:
    return token_layout(architecture.concat_dim, architecture.proprio_per_patch)(
        num_patches=source.num_patches,
        visual_dim=source.emb_dim,
        proprio_dim=architecture.proprio_emb_dim,
        action_dim=architecture.action_emb_dim,
        proprio_repeat=architecture.num_proprio_repeat,
        action_repeat=architecture.num_action_repeat,
    )


def _sizes(
    architecture: Architecture,
    layout: TokenLayout,
    grid: tuple[int, int] | None,
    env_action_dim: int,
    proprio_dim: int,
) -> dict[str, dict[str, Any]]:
    """Sizes that each network behind encoder and projector may ask for, by the names of its constructor's arguments."""
    action_dim = env_action_dim * architecture.frameskip
    tokens = {"num_patches": layout.tokens_per_frame, "dim": layout.token_dim}
    patches = {"num_patches": layout.num_patches}
    return {
        "proprio_encoder": {"in_dim": proprio_dim, "emb_dim": layout.proprio_dim},
        "action_encoder": {"in_dim": action_dim, "emb_dim": layout.action_dim},
        "predictor": tokens
        | {"num_frames": architecture.num_hist, "grid": grid}
        | {"visual_dim": layout.visual_dim, "proprio_dim": layout.proprio_dim * layout.proprio_repeat},
        "decoder": patches | {"emb_dim": layout.visual_dim, "img_size": architecture.img_size},
        "proposal": patches
        | {"visual_dim": layout.visual_dim, "proprio_dim": layout.latent_proprio_dim, "action_dim": action_dim},
    }


def _check(architecture: Architecture) -> None:
    token_layout(architecture.concat_dim, architecture.proprio_per_patch)
    if architecture.num_pred != 1:
        raise ValueError(f"num_pred must be 1 (a model predicts one step ahead), got {architecture.num_pred}")
    for key in ("num_hist", "frameskip", "img_size", "action_emb_dim", "proprio_emb_dim"):
        if (size := getattr(architecture, key)) < 1:
            raise ValueError(f"{key} must be at least 1, got {size}")


def _check_drawn(decoder: Decoder, img_size: int, num_patches: int) -> None:
    """Refuse a decoder that makes smaller images of the patches that a projector leaves."""
    if decoder.img_size != img_size:
        raise ValueError(
            f"the decoder draws {decoder.img_size} x {decoder.img_size} pixels from the {num_patches} patches that the "
            f"projector leaves, and img_size is {img_size}; use decoder=conv, or has_decoder=false"
        )


def _check_memory(part: str, described: Component[Any], sizes: Mapping[str, Any]) -> None:
    """Refuse a network whose weights alone do not fit into memory, before any of them is drawn."""
    node = described.settings
    widths = [value for value in (*node.values(), *sizes.values()) if isinstance(value, int)]
    tokens = sizes.get("num_patches", 1) * sizes.get("dim", 1)
    if max(*widths, tokens) ** 2 * (node.get("depth") or 1) < SURELY_SMALL:
        return
    try:
        with torch.device("meta"):
            network = _part(described, sizes)
    except InstantiationException:  # building it in earnest says what is wrong, or that it only cannot do without data
        return
    needed = sum(tensor.nbytes for tensor in network.state_dict().values())
    if needed > (there := available_memory()):
        settings = ", ".join(f"{part}.{key}={value}" for key, value in node.items() if key != "_target_")
        raise ValueError(
            f"{settings}: the weights alone take {as_size(needed)}, and {as_size(there)} of memory are available; "
            "lower these, or num_hist, img_size, or the sizes and repeats of action and proprio embeddings, "
            "which make the tokens"
        )


def _part(described: Component[T], sizes: Mapping[str, Any]) -> T:
    """Build a part; it gets those ``sizes`` that its constructor asks for and its config leaves open."""
    node = described.settings
    wanted = inspect.signature(get_class(node["_target_"])).parameters
    sizes = {name: size for name, size in sizes.items() if name in wanted and name not in node}
    # a node of a checkpoint builds this class and no other, from plain data
    return described.build(_recursive_=False, _convert_="all", **sizes)
