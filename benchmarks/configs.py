"""The configs that the cases are built from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from utils.cli import plain

CONFIG = Path(__file__).resolve().parent.parent / "conf"


def composed(overrides: list[str]) -> dict[str, Any]:
    """``conf/train.yaml`` as plain data."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        return plain(compose("train", overrides=overrides))
