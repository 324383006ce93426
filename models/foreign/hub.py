"""Our own folders for a model hub: ``config.json``, ``model.safetensors`` and a card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.foreign.contents import Contents
from models.foreign.facts import Facts
from models.foreign.inert_pickle import CheckpointError
from models.foreign.translation import Translation

NAME = "hub folder"
FORMAT, VERSION = "planning-by-gradient/world-model", 1


def recognises(contents: Contents) -> bool:
    """Whether a file lies in such a folder."""
    return contents.config.get("format") == FORMAT


def translate(contents: Contents, _: Facts) -> Translation:
    """Read the folder's config.

    Raises:
        CheckpointError: If it is of a later version, or not as we write it.
    """
    config = contents.config
    if config.get("version") != VERSION:
        raise CheckpointError(
            f"{contents.path.parent} is of version {config.get('version')!r}, this project reads {VERSION}; update it"
        )
    described, about = config.get("architecture"), config.get("about")
    if not isinstance(described, Mapping) or not isinstance(about, Mapping):
        raise CheckpointError(f"{contents.path.parent}/config.json lacks architecture or about; get it again")
    return Translation(NAME, contents.tensors, with_targets(described), about=dict(about))


def with_targets(described: Mapping[str, Any]) -> dict[str, Any]:
    """Name classes as our ``hydra.yaml`` does; they are held against our own options before any is built."""
    return {key: _renamed(value, "class", "_target_") for key, value in described.items()}


def without_targets(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Invert ``with_targets``: other programs would call what a ``_target_`` names."""
    return {key: _renamed(value, "_target_", "class") for key, value in architecture.items()}


def _renamed(value: Any, before: str, after: str) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {after if key == before else key: each for key, each in value.items()}
