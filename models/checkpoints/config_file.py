"""Reading a model's ``hydra.yaml`` as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from utils.moved_classes import current_names
from utils.moved_settings import current_settings
from utils.reading.opening import FileError
from utils.reading.yaml_file import read_yaml

OPTION_FOLDERS = [Path(__file__).resolve().parents[2] / "conf"]
"""Folders of options whose classes a checkpoint may name: ours, and the one that ``--config-dir`` names."""

REMEDY = "a model directory needs the hydra.yaml that its training wrote"


def read_model_config(path: str | Path) -> dict[str, Any]:
    """Read a model's ``hydra.yaml`` as plain dicts, lists, numbers and strings.

    Nothing in it is resolved or imported: ``${...}`` and ``_target_`` stay the strings they are.

    Raises:
        ValueError: If the file is missing, too large, or is not a YAML mapping of plain data.
    """
    path = Path(path)
    try:
        content = read_yaml(path, dict, REMEDY)
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from None
    if not content:
        raise FileError(f"{path} holds no settings; {REMEDY}")
    return current_settings(current_names({str(key): value for key, value in content.items()}))
