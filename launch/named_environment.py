"""The configuration that an evaluation is composed from where the user names none: that of the model it plans with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.grammar import key_of
from models.checkpoints.config_file import read_model_config
from utils.reading.json_file import read_json

ENVIRONMENTS = ("pusht", "point_maze", "point_maze_medium", "point_maze_large", "wall")
"""Those with a ``conf/plan_<env>.yaml``; nothing else that a checkpoint says may choose a configuration."""

CHOOSING = ("-cn", "--config-n", "-cp", "--config-p", "-cd", "--config-d", "resume=")
"""How arguments begin that name a configuration, or where one is looked for."""


def with_config_name(argv: Sequence[str]) -> list[str]:
    """Put ``--config-name plan_<env>`` before a command line that names neither environment nor configuration.

    The environment is that of ``ckpt_path``, of all of them in a sweep over several; the file of that name brings the
    environment's goal defaults, too. The checkpoint's ``hydra.yaml`` is read as inert data.

    Args:
        argv: Arguments of ``plan.py``; returned as they are where nothing can be told.
    """
    named = any(argument.startswith(CHOOSING) or key_of(argument) == "env" for argument in argv)
    paths = [argument.split("=", 1)[1] for argument in argv if key_of(argument) == "ckpt_path" and "=" in argument]
    if named or not paths:
        return list(argv)
    one = {_environment(paths[-1])}
    found = one if one != {None} else {_environment(path) for path in paths[-1].split(",")}
    (env,) = found if len(found) == 1 else (None,)
    return list(argv) if env is None else ["--config-name", f"plan_{env}", *argv]


def _environment(ckpt_path: str) -> str | None:
    """The environment that a model directory was trained in, if it is one of ours."""
    text = ckpt_path.strip().replace("\\", "")
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    try:
        env = _described(Path(text).expanduser()).get("env")
    except (ValueError, RuntimeError, OSError):  # what is wrong with it is said when the checkpoint is read
        return None
    name = env.get("name") if isinstance(env, Mapping) else None
    return name if name in ENVIRONMENTS else None


def _described(folder: Path) -> Mapping[str, Any]:
    """The config of a model directory, or of a folder that was made for a model hub."""
    if (folder / "hydra.yaml").is_file() or not (folder / "config.json").is_file():
        return read_model_config(folder / "hydra.yaml")
    architecture = read_json(folder / "config.json", dict).get("architecture")
    return architecture if isinstance(architecture, Mapping) else {}
