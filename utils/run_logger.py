"""The logger that a run's settings name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from utils import distributed
from utils.loggers import JsonLinesLogger, SilentLogger


def run_logger(config: Mapping[str, Any], folder: Path) -> JsonLinesLogger:
    """Build the logger of a run, which stays silent in all processes but the main one.

    Args:
        config: all settings of the run; ``logger`` says which. folder: of the run.
    """
    if not distributed.is_main():
        return SilentLogger()
    logger: JsonLinesLogger = instantiate(config["logger"], folder=folder)
    logger.describe(config)
    return logger
