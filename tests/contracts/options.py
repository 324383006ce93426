"""The options of a config group that the contracts are held against: every file of ours, and of the user's folders.

``python -m pytest tests/contracts --config-dir mine`` looks at ``mine`` alone; see docs/extending.md.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hydra import compose
from omegaconf import DictConfig, OmegaConf

from launch.command_line import plain
from launch.conf import CONF
from launch.grammar import key_of
from models.checkpoints.config_file import OPTION_FOLDERS
from tests.training.tiny import config_folder


def folders(config: pytest.Config) -> list[Path]:
    """The user's folders, or ours if none was named."""
    return [Path(text).resolve() for text in config.getoption("--config-dir")] or [CONF]


def names(config: pytest.Config, group: str) -> list[str]:
    """The name of every option of a group."""
    return [path.stem for folder in folders(config) for path in sorted((folder / group).glob("*.yaml"))]


class Composing:
    """Composes a config from our folder and the user's, with the settings of the command line."""

    def __init__(self, config: pytest.Config) -> None:
        self._folders = [folder for folder in folders(config) if folder != CONF]
        self._settings = config.getoption("--setting")
        OPTION_FOLDERS.extend(self._folders)  # what a checkpoint may name

    @functools.cached_property
    def _search(self) -> list[str]:
        places = ",".join(f"file://{folder}" for folder in self._folders)
        return [f"hydra.searchpath=[{places}]"] if places else []

    def __call__(self, *overrides: str, name: str = "train") -> dict[str, Any]:
        """The config as plain data.

        Args:
            *overrides: Settings, before those of the command line.
            name: Of the entry's config.
        """
        run = [] if name == "collect" else ["run_dir=unused"]
        with config_folder():
            own = [*self._search, *run, *overrides]
            known = compose(name, overrides=own)
            return plain(compose(name, overrides=[*own, *(text for text in self._settings if _reaches(text, known))]))


def _reaches(setting: str, config: DictConfig) -> bool:
    """Whether a setting is not one of another option than the config has, such as another simulator's."""
    group, _, name = key_of(setting).rpartition(".")
    option = OmegaConf.select(config, group) if group else None
    return setting[0] in "+~" or not isinstance(option, DictConfig) or "_target_" not in option or name in option
