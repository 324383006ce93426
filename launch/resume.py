"""``resume=<folder>``: the command that started the run or sweep there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser

from launch.conf import CONF, entries, groups
from launch.grammar import quoted
from launch.override_checks import why_refused
from launch.paths import at_home
from utils.moved_settings import current_overrides
from utils.printable import exit_with
from utils.reading.yaml_file import read_yaml

RESUME = "resume="
AGAIN = "give the command of the run again instead, with hydra.run.dir=<folder>"
OTHER = {"train": "a training run", "plan": "an evaluation"}


def expand_resume(argv: Sequence[str], entry: str | None = None, conf: Path = CONF) -> list[str]:
    """Replace ``resume=<folder>`` by the command that started the run or sweep there, so that it continues.

    Arguments given beside ``resume=`` come after the recorded ones. Nothing in the folder may choose classes, or where
    Hydra finds its configs: such a record is refused.

    Args:
        argv: Of the process.
        entry: "train" or "plan", the name of the script; None takes folders of both.
        conf: Folder of the entry's configs.

    Raises:
        SystemExit: With one line, if the folder is no run, one of another script, or asks for more than our options.
    """
    chosen = [argument for argument in argv if argument.startswith(RESUME)]
    if not chosen:
        return list(argv)
    folder = Path(at_home(chosen[-1].removeprefix(RESUME)))
    rest = [argument for argument in argv if argument not in chosen]
    try:
        if (folder / "multirun.yaml").exists():
            command = _command(*_of_sweep(folder), rest, folder, entry, conf)
            return ["-m", *command, f"hydra.sweep.dir={_text(folder)}", *rest]
        # .hydra stays what it was: an attempt that is refused must not be what a later one repeats
        here = [f"hydra.run.dir={_text(folder)}", "hydra.output_subdir=null"]
        return [*_command(*_of_run(folder), rest, folder, entry, conf), *here, *rest]
    except (ValueError, OSError) as error:  # a name that is too long, say
        exit_with(f"error: {error}")


def _of_run(folder: Path) -> tuple[Path, Any, Any]:
    """The file with the recorded overrides, the name of the config, and the overrides."""
    try:
        overrides = folder / ".hydra" / "overrides.yaml"
        recorded = read_yaml(overrides, list, AGAIN)  # killed while it was written: nothing had been trained
        name = read_yaml(folder / ".hydra" / "hydra.yaml", dict, AGAIN)["hydra"]["job"]["config_name"]
        return overrides, name, recorded
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{RESUME}{folder}: there is no run to resume ({error})") from None


def _of_sweep(folder: Path) -> tuple[Path, Any, Any]:
    path = folder / "multirun.yaml"
    try:
        recorded = read_yaml(path, dict)["hydra"]
        return path, recorded["job"]["config_name"], [*recorded["overrides"]["task"]]
    except (OSError, ValueError, KeyError, TypeError) as error:  # killed while Hydra wrote it
        raise ValueError(f"{path} is broken ({error}); give the command of the sweep again") from None


def _command(
    file: Path,
    name: Any,
    recorded: Sequence[Any],
    rest: Sequence[str],
    folder: Path,
    entry: str | None,
    conf: Path,
) -> list[str]:
    """The recorded part of the command, if it is harmless.

    Raises:
        ValueError: Naming the file and the item.
    """
    given = get_args_parser().parse_known_args([*rest])[0].config_dir
    folders = [conf, Path(given)] if given else [conf]
    name = name.removesuffix(".yaml") if isinstance(name, str) else name
    if name not in entries(folders):
        raise ValueError(f"{file.parent}: {name!r} is no config of this project; {AGAIN}")
    if entry is not None and not name.startswith(entry) and name in entries([conf]):
        raise ValueError(_other_script(name, folder))
    known = groups(folders)
    present = [item for item in recorded if not isinstance(item, str)]
    present += current_overrides([item for item in recorded if isinstance(item, str)])
    for item in present:
        if why := why_refused(item, known):
            raise ValueError(f"{file}: {item!r} cannot be taken from a folder: {why}; {AGAIN}")
    return ["--config-name", name, *present]


def _other_script(name: str, folder: Path) -> str:
    other = next((script for script in OTHER if name.startswith(script)), None)
    if other is None:
        return f"{RESUME}{folder}: it was made with {name}.yaml; {AGAIN}"
    more = f"; to evaluate it: python plan.py ckpt_path={folder}" if other == "train" else ""
    return f"{RESUME}{folder} is {OTHER[other]}: continue it with python {other}.py {RESUME}{folder}{more}"


def _text(folder: Path) -> str:
    return quoted(str(folder))
