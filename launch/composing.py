"""Composing a config before anything else is imported, as Hydra's own entry will compose it again."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import launch.sweep_names  # noqa: F401  (registers the resolver that names a sweep's members)
from launch.conf import CONF
from models.checkpoints.config_file import OPTION_FOLDERS


def open_folder(folder: Path) -> None:
    """Let the classes in a user's folder be found, and checkpoints name what its options name.

    Raises:
        ValueError: If there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"--config-dir {folder}: there is no such folder")
    if (place := str(folder.resolve())) not in sys.path:
        sys.path.append(place)  # the classes that its options name may lie beside them
    if folder.absolute() not in OPTION_FOLDERS:
        OPTION_FOLDERS.append(folder.absolute())


class Composer:
    """Composes one of the configs in conf/, and a folder of the user's before it.

    Args:
        name: Of the config.
        folder: What ``--config-dir`` named.
    """

    def __init__(self, name: str, folder: Path | None) -> None:
        self.name, self.folders = name, [folder, CONF] if folder else [CONF]

    @functools.cached_property
    def _loader(self) -> ConfigLoaderImpl:
        """Hydra's loader, which keeps the files that it has read."""
        search_path = create_config_search_path(str(CONF))
        if len(self.folders) > 1:
            there = f"file://{self.folders[0].absolute()}"
            search_path.prepend(provider="command-line", path=there, anchor=SearchPathQuery(provider="schema"))
        # in the middle of an entry, or before Hydra makes its own there
        kept, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
        try:
            loader = Hydra.create_main_hydra2("composing", search_path).config_loader
        finally:
            GlobalHydra.instance().hydra = kept
        assert isinstance(loader, ConfigLoaderImpl)
        return loader

    def compose(self, overrides: Sequence[str], sweep: bool = False) -> dict[str, Any]:
        """The config as nested dicts, nothing in it resolved, without Hydra's own part.

        Raises:
            HydraException: If the overrides do not fit.
        """
        mode = RunMode.MULTIRUN if sweep else RunMode.RUN
        composed: DictConfig = self._loader.load_configuration(self.name, [*overrides], run_mode=mode)
        content = OmegaConf.to_container(composed, resolve=False)
        assert isinstance(content, dict)
        return {str(key): value for key, value in content.items() if key != "hydra"}

    def config(self, overrides: Sequence[str]) -> DictConfig:
        """Compose the same as a config, whose interpolations are resolved when they are read."""
        config = OmegaConf.create(self.compose(overrides))
        assert isinstance(config, DictConfig)
        return config

    def files(self, overrides: Sequence[str]) -> list[tuple[Path, str]]:
        """The files that a config is made of, in order, each with the key that its content stands under."""
        defaults = self._loader.compute_defaults_list(self.name, [*overrides], RunMode.RUN).defaults
        found = []
        for default in defaults:
            path = next((p for folder in self.folders if (p := folder / f"{default.config_path}.yaml").is_file()), None)
            if path is not None:
                found.append((path, default.package or ""))
        return found


def keys_of(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every key at any depth with its value: {"training": {...}, "training.seed": 0, ...}."""
    found = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        found[key] = value
        if isinstance(value, dict):
            found |= keys_of(value, f"{key}.")
    return found
