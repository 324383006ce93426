"""Names of sweeps and of their members' folders, which are the same whenever the same command is given."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

MULTIRUN = ("-m", "--multirun", "hydra.mode=MULTIRUN")
LONGEST = 120  # characters of a folder's name; file systems take 255

FOLDER = "hydra.sweep.dir="


def is_sweep(argv: Sequence[str]) -> bool:
    """Whether a command line asks for a sweep."""
    return any(argument in MULTIRUN or _is_short_for_multirun(argument) for argument in argv)


def _is_short_for_multirun(argument: str) -> bool:
    """argparse takes unambiguous beginnings of an option."""
    return len(argument) > 3 and "--multirun".startswith(argument)


def name_sweep(argv: Sequence[str], parent: str) -> list[str]:
    """Give a sweep the folder ``<parent>/<swept keys>-<hash of the command>``, unless the user named one.

    Given again, the command finds what it has done. The members' folders are named after the swept settings only.
    """
    arguments = list(argv)
    if not is_sweep(arguments):
        return arguments
    overrides = _overrides(arguments)
    swept = [_key(override) for override in overrides if override.is_sweep_override()]
    fixed = sorted({"cluster", *map(_key, overrides)} - set(swept))
    arguments.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(_quoted, fixed))}]")
    if not any(argument.startswith(FOLDER) for argument in arguments):
        keys = "-".join(sorted(key.rsplit(".", 1)[-1] for key in swept)) or "single"
        said = [argument for argument in argv if argument not in MULTIRUN and not _is_hydras(argument)]
        name = f"{keys[:60]}-{_digest(' '.join(sorted(said)))}"
        arguments.append(f"{FOLDER}{_quoted(f'{parent}/{name}')}")
    return arguments


def sweep_folder(argv: Sequence[str]) -> Path | None:
    """Where a sweep's members lie, as its command line says; None if that depends on the member."""
    named = [argument.removeprefix(FOLDER).strip("'\"") for argument in argv if argument.startswith(FOLDER)]
    return Path(named[-1]) if named and "$" not in named[-1] else None


def count_members(argv: Sequence[str]) -> int | None:
    """How many members a command line asks for; None if the sweeper decides (intervals, globs)."""
    count = 1
    for override in _overrides(argv):
        if override.is_choice_sweep() or override.is_range_sweep():
            count *= sum(1 for _ in override.sweep_iterator())
        elif override.is_sweep_override():
            return None
    return count


def member_name(overrides: str) -> str:
    """A folder name out of overrides joined by Hydra: no slash, nothing that a shell or Hydra would take apart."""
    plain = re.sub(r"[^\w.,=-]+", "_", overrides).replace(",", "+").replace("=", "-").strip("_")
    if not plain:
        return "single"
    if len(plain) <= LONGEST and re.fullmatch(r"[\w.,=-]*", overrides):
        return plain
    return f"{plain[:LONGEST]}-{_digest(overrides)}"  # what was replaced or cut must not make two members one


def _overrides(argv: Sequence[str]) -> list[Override]:
    """What a command line sets; what Hydra will refuse anyway is left to it."""
    found: list[Override] = []
    for argument in argv:
        if "=" in argument and not argument.startswith("-") and not _is_hydras(argument):
            try:
                found += OverridesParser.create().parse_overrides([argument])
            except HydraException:
                continue
    return found


def _is_hydras(argument: str) -> bool:
    """Whether a setting is Hydra's own: which launcher runs a sweep, and where, does not make it another."""
    return argument.lstrip("+~").startswith(("hydra.", "hydra/", "cluster="))


def _key(override: Override) -> str:
    return override.key_or_group


def _quoted(text: str) -> str:
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


OmegaConf.register_new_resolver("member_name", member_name, replace=True)
