"""The configs that the cases are built from, and the user's own overrides of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from launch.command_line import parse
from utils.schema import Settings

S = TypeVar("S", bound=Settings)
CONFIG = Path(__file__).resolve().parent.parent / "conf"


def composed(schema: type[S], overrides: Sequence[str], name: str, own: Sequence[str] = ()) -> S:
    """Make the settings of ``conf/<name>.yaml``.

    Args:
        schema: Of them.
        overrides: Must fit.
        own: The user's, of which those are taken whose key is there.
    """
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        known = compose(name, overrides=list(overrides))
        taken = [override for override in own if _fits(override, known)]
        return parse(compose(name, overrides=[*overrides, *taken]) if taken else known, schema)


def taken_overrides(overrides: Sequence[str], name: str, own: Sequence[str]) -> set[str]:
    """Pick those of the user's ``own`` overrides that have an effect on a config."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        known = compose(name, overrides=list(overrides))
        return {override for override in own if _fits(override, known)}


def _fits(override: str, config: DictConfig) -> bool:
    key = override.lstrip("+").split("=", 1)[0].rpartition("@")[2]
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and (override.startswith("+") or name in node.keys())  # noqa: SIM118
