"""Names of the folders of runs, sweeps and their members, which are the same whenever the same command is given."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from launch.grammar import MULTIRUN, is_hydras, is_sweep, parse_override, quoted, text_of

LONGEST = 120  # characters of a folder's name; file systems take 255

NO_LOG_FILE = "hydra/job_logging=stdout"
FOLDER = "hydra.sweep.dir="


def name_sweep(argv: Sequence[str], parent: str) -> list[str]:
    """Give a sweep the folder ``<parent>/<swept keys>-<hash of the command>``, unless the user named one.

    Given again, the command finds what it has done. The members' folders are named after the swept settings only.
    """
    arguments = list(argv)
    if not is_sweep(arguments):
        return arguments
    overrides = _overrides(arguments)
    swept = [override.key_or_group for override in overrides if override.is_sweep_override()]
    fixed = sorted({"cluster", *(override.key_or_group for override in overrides)} - set(swept))
    # the members write their own records and logs, once they hold their folders
    arguments.append("hydra.output_subdir=null")
    if not any(argument.startswith("hydra/job_logging=") for argument in arguments):
        arguments.append(NO_LOG_FILE)
    arguments.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(quoted, fixed))}]")
    if not any(argument.startswith(FOLDER) for argument in arguments):
        keys = "-".join(sorted(key.rsplit(".", 1)[-1] for key in swept)) or "single"
        said = [argument for argument in argv if argument not in MULTIRUN and not _is_hydras(argument)]
        name = f"{keys[:60]}-{_digest(' '.join(sorted(said)))}"
        arguments.append(f"{FOLDER}{quoted(f'{parent}/{name}')}")
    return arguments


def sweep_folder(argv: Sequence[str]) -> Path | None:
    """Return where a sweep's members lie, as its command line says; None if that depends on the member."""
    named = text_of(argv, FOLDER.rstrip("="))
    return Path(named) if named is not None and "$" not in named else None


def count_members(argv: Sequence[str]) -> int | None:
    """Count the members that a command line asks for; None if the sweeper decides (intervals, globs)."""
    count = 1
    for override in _overrides(argv):
        if override.is_choice_sweep() or override.is_range_sweep():
            count *= sum(1 for _ in override.sweep_iterator())
        elif override.is_sweep_override():
            return None
    return count


def member_name(overrides: str) -> str:
    """Make a folder name of overrides joined by Hydra, without what a shell or Hydra would take apart."""
    plain = re.sub(r"[^\w.,=-]+", "_", overrides).replace(",", "+").replace("=", "-").strip("_")
    if not plain:
        return "single"
    if len(plain) <= LONGEST and re.fullmatch(r"[\w.,=-]*", overrides):
        return plain
    return f"{plain[:LONGEST]}-{_digest(overrides)}"  # what was replaced or cut must not make two members one


def _overrides(argv: Sequence[str]) -> list[Override]:
    """Parse what a command line sets; what Hydra will refuse anyway is left to it."""
    settings = (text for text in argv if "=" in text and not text.startswith("-") and not _is_hydras(text))
    return [override for override in map(parse_override, settings) if override is not None]


def _is_hydras(argument: str) -> bool:
    """Whether a setting is Hydra's own: which launcher runs a sweep, and where, does not make it another."""
    return is_hydras(argument) or argument.lstrip("+~").startswith("cluster=")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def runs_below(ckpt_path: str | None) -> str:
    """Name the folder below which a base's runs are: its model directory, or beside a file one of the file's name."""
    path = Path(str(ckpt_path))  # None is refused later, by its name
    return str(path.with_name(path.name.split(".")[0])) if path.is_file() else str(path)


OmegaConf.register_new_resolver("runs_below", runs_below, replace=True)
OmegaConf.register_new_resolver("member_name", member_name, replace=True)
