"""What ``--help`` prints: the settings of a command as they are now, with the comments of conf/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from launch.comments import comments, headline
from launch.composing import Composer, keys_of
from launch.conf import groups

WIDTH = 44  # of a setting, before its description
EMPTY_GROUPS = ("experiment", "cluster", "proposal", "projector")  # of which most configs choose nothing


def help_text(command: str, about: str, composer: Composer, overrides: Sequence[str]) -> str:
    """Write the page that ``--help`` prints.

    Args:
        command: How it is called.
        about: What it is for.
        composer: Of its config.
        overrides: That were given, too.

    Raises:
        HydraException: If the overrides do not fit.
    """
    config, files = composer.compose(overrides), composer.files(overrides)
    lines = [about.strip(), "", f"usage: {command} [--config-name NAME] [--config-dir FOLDER] [key=value ...] [-m]", ""]
    lines += ["  -m: one run for each of several values, key=a,b   --cfg job: only print the configuration"]
    if command.endswith((".py", "plan_wall.yaml")):
        lines += ["  resume=FOLDER: continue the run or sweep there"]
    lines += ["  --hydra-help: what else Hydra knows", "", "OPTIONS (group=option), * in use", ""]
    lines += _options(composer, files, config)
    lines += ["SETTINGS (key=value) and their values now", "", *_settings(config, _described(composer, files))]
    return "\n".join(lines) + "\n"


def _options(composer: Composer, files: Sequence[tuple[Path, str]], config: dict[str, Any]) -> list[str]:
    used = {path for path, _ in files}
    known = {group for path, _ in files if (group := path.parent.name)} | {*config, *EMPTY_GROUPS}
    lines = []
    for group, options in groups(composer.folders).items():
        if group not in known:
            continue
        lines.append(f"  {group}")
        for option in options:
            path = next(p for folder in composer.folders if (p := folder / group / f"{option}.yaml").is_file())
            lines.append(_columns(f"  {'*' if path in used else ' '} {option}", headline(path), 24))
        lines.append("")
    return lines


def _described(composer: Composer, files: Sequence[tuple[Path, str]]) -> dict[str, str]:
    """A description of every setting that has one, if need be that of a setting of its name in the same group."""
    found: dict[str, str] = {}
    alike: dict[str, str] = {}
    for path, package in files:
        start = f"{package}." if package and package != "_global_" else ""
        found |= {f"{start}{key}": text for key, text in comments(path).items()}
        if path.parent not in composer.folders:
            for sibling in sorted(path.parent.glob("*.yaml")):
                for key, text in comments(sibling).items():
                    alike.setdefault(f"{start}{key.rpartition('.')[2]}", text)
    return alike | found


def _settings(config: dict[str, Any], described: dict[str, str]) -> list[str]:
    lines = []
    for key, value in keys_of(config).items():
        last = key.rpartition(".")[2]
        if isinstance(value, dict) and value:
            if "." not in key:
                lines.append("")
            if described.get(key):
                lines.append(_columns(f"  {key}", described[key], WIDTH))
        elif last != "_target_":
            lines.append(_columns(f"  {key}={_shown(value)}", described.get(key, ""), WIDTH))
    return lines


def _columns(left: str, right: str, width: int) -> str:
    return f"{left:<{width}}  {right}".rstrip()


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).replace("\n...", "").strip()
