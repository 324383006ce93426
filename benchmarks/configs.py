"""The configs that the cases are built from, and the user's own overrides of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from omegaconf import DictConfig, OmegaConf

from launch.command_line import parse
from launch.composing import Composer
from utils.schema import Settings

S = TypeVar("S", bound=Settings)


def composed(schema: type[S], overrides: Sequence[str], name: str, own: Sequence[str] = ()) -> S:
    """Make the settings of ``conf/<name>.yaml``.

    Args:
        schema: Of them.
        overrides: Must fit.
        own: The user's, of which those are taken whose key is there.
    """
    known = taken_overrides(overrides, name, own) if own else set[str]()
    taken = [override for override in own if override in known]
    return parse(Composer(name, None).config([*overrides, *taken]), schema)


def taken_overrides(overrides: Sequence[str], name: str, own: Sequence[str]) -> set[str]:
    """Pick those of the user's ``own`` overrides that have an effect on a config."""
    known = Composer(name, None).config(overrides)
    return {override for override in own if _fits(override, known)}


def _fits(override: str, config: DictConfig) -> bool:
    key = override.lstrip("+").split("=", 1)[0].rpartition("@")[2]
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and (override.startswith("+") or name in node.keys())  # noqa: SIM118
