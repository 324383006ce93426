"""Paths on the command line, given as a shell passes them, in the words of Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import QuotedString

from launch.grammar import is_sweep, parse_override, quoted
from utils.model_hub import SCHEME, fetch_model
from utils.printable import exit_with

NAMES = ("data_path", "ckpt_path", "goal_file_path", "run_dir", "latent_dir", "weights", "folder")
"""Last parts of the keys whose values are paths."""

KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
ASSIGNMENT = re.compile(r"(?P<start>\+{0,2}(?P<key>[\w.]+)=)(?P<value>.*)", re.DOTALL)


def readable_paths(argv: Sequence[str]) -> list[str]:
    """The arguments, with those paths in quotes that Hydra would not read as they stand.

    ``~`` becomes the home directory, and a carriage return at the end of an argument, of a script that was written on
    Windows, goes. ``ckpt_path=hf://owner/name`` becomes the path of what is fetched from the hub. What Hydra reads as a
    text already, in quotes or not, stays as it is, and so do the choices of a sweep.
    """
    arguments = [argument.rstrip("\r") for argument in argv]
    swept = is_sweep(arguments)
    return [_readable(argument, swept) for argument in arguments]


def _readable(argument: str, swept: bool) -> str:
    found = ASSIGNMENT.fullmatch(argument)
    if found is None or not (found["key"].rpartition(".")[2] in NAMES or found["key"] in KEYS):
        return argument
    value = found["value"]
    if found["key"] == "ckpt_path" and SCHEME in value:
        value = ",".join(_fetched(part) for part in value.split(","))
    parts = value.split(",")
    if not swept and len(parts) > 1 and not Path(at_home(value)).exists() and all(map(_exists, parts)):
        return argument  # Hydra will say that several need a sweep
    if not swept or len(parts) == 1 or _is_call(value) or _exists(value):
        return found["start"] + _literal(value, swept and not _exists(value))
    return found["start"] + ",".join(_literal(part, swept) for part in parts)


def _fetched(address: str) -> str:
    """Bring a model of a hub here; returns where it is."""
    if not address.startswith(SCHEME):
        return address
    try:
        return str(fetch_model(address))
    except OSError as error:
        exit_with(f"error: ckpt_path={address}: {error}")


def _literal(value: str, swept: bool) -> str:
    value = at_home(value)
    override = parse_override(f"key={value}")
    if override is not None:
        read = override._value
        if read is None or isinstance(read, str | QuotedString) or (swept and override.is_sweep_override()):
            return value
    return quoted(value)


def _is_call(value: str) -> bool:
    """choice(a,b), glob(*) or a quoted text with a comma in it."""
    return re.match(r"(\w+\(|['\"])", value) is not None and parse_override(f"key={value}") is not None


def _exists(value: str) -> bool:
    return Path(at_home(value)).exists()


def at_home(value: str) -> str:
    """A path with the home directory for ``~``, unless it exists as it stands or there is no such user."""
    if not value.startswith("~") or Path(value).exists():
        return value
    try:
        return str(Path(value).expanduser())
    except RuntimeError:  # no such user
        return value
