"""The options of a config group that the contracts are held against: every file of ours, and of the user's folders.

``python -m pytest tests/contracts --config-dir mine`` looks at ``mine`` alone; see docs/extending.md.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hydra import compose

from launch.command_line import plain
from launch.conf import CONF
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
            return plain(compose(name, overrides=[*self._search, *run, *overrides, *self._settings]))
