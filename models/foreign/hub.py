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
NOT_FOR_OTHERS = ("parent", "parent_sha256", "layout", "classes")
"""What a file says of where it was made: it is neither written nor believed."""


def recognises(contents: Contents) -> bool:
    """Whether a file lies in such a folder."""
    return contents.config.get("format") == FORMAT


def translate(contents: Contents, facts: Facts) -> Translation:
    """Read the folder's config.

    Raises:
        CheckpointError: If it is of a later version, or not as we write it, or the user says what it says itself.
    """
    config = contents.config
    if given := [key for key, value in vars(facts).items() if value is not None]:
        raise CheckpointError(f"foreign.{given[0]} has no effect: {contents.path.parent} says it itself; leave it out")
    if config.get("version") != VERSION:
        raise CheckpointError(
            f"{contents.path.parent} is of version {config.get('version')!r}, this project reads {VERSION}; update it"
        )
    described, about = config.get("architecture"), config.get("about")
    if not isinstance(described, Mapping) or not isinstance(about, Mapping):
        raise CheckpointError(f"{contents.path.parent}/config.json lacks architecture or about; get it again")
    kept = {key: value for key, value in about.items() if key not in NOT_FOR_OTHERS}
    return Translation(NAME, contents.tensors, with_targets(described), about=kept)


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
