"""What the command lines share: composed configs as plain data, errors as one line, records that stay."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launch import door
from launch.conf import groups
from launch.grammar import is_sweep, key_of, text_of
from launch.limits import FACTS, RULES, check_memory
from launch.rules import check_values, rule_of
from launch.values import TRUSTED, checked
from utils import distributed
from utils.missing import missing_package
from utils.moved_classes import current_names
from utils.printable import printable_logs

log = logging.getLogger(__name__)


def overridden_keys(overrides: Sequence[str]) -> set[str]:
    """Keys that a list of Hydra overrides sets: "num_hist", "encoder", "training.batch_size"."""
    return set(map(key_of, overrides))


def check_types(cfg: DictConfig, config_name: str, parts: Sequence[str]) -> None:
    """Refuse values of another type or out of range, groups left out, and added or removed settings.

    Examples are ``training.batch_size=many``, ``env=null``, ``+training.batchsize=4`` and ``~training.seed``.

    Args:
        cfg: as composed. config_name: what it was composed from. parts: config groups that must have an option.

    Raises:
        ValueError: Naming the key, the value and what is allowed.
    """
    for part in parts:
        if OmegaConf.select(cfg, part, throw_on_resolution_failure=False) is None:
            options = ", ".join(groups().get(part, []))
            raise ValueError(f"{part}=null: there must be one; choose among {options}, or leave it out for the default")
    config = plain(cfg)
    check_values(config, RULES)
    check_memory(config)
    task = list(HydraConfig.get().overrides.task)
    chosen = [override for override in task if override.lstrip("+~").split("=", 1)[0] in _choices()]
    added = [override for override in task if override.startswith(("+", "~")) and override not in chosen]
    added = [override for override in added if not override.lstrip("+").startswith(TRUSTED)]
    keys = {key for key in overridden_keys(task) if key in FACTS or rule_of(key, "", RULES) is None}
    if not added and not keys:
        return
    defaults = compose(config_name, overrides=chosen)
    for override in added:
        _check_known(override, defaults)
    for key in keys:
        default, value = (OmegaConf.select(tree, key, throw_on_missing=False) for tree in (defaults, cfg))
        if key in FACTS and value != default:
            raise ValueError(f"{key}={value}: this environment has {default}; leave it out, or choose another env")
        kind = object if default in (None, "auto") else type(default)  # of a class of the user's own
        if value is not None and not _fits(kind, value):
            kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
            raise ValueError(
                f"{key}={value} must be {kinds.get(kind, 'a group of settings')}; the default is {default}"
            )


def _choices() -> set[str]:
    """Config groups, as they are written in an override."""
    return set(HydraConfig.get().runtime.choices)


def _check_known(override: str, defaults: DictConfig) -> None:
    """A class refuses arguments that it does not know, or lacks; nothing else would."""
    key = override.lstrip("+~").split("=", 1)[0]
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(defaults, parent) if parent else defaults
    if isinstance(node, DictConfig) and ("_target_" in node or (name in node and override.startswith("+"))):
        return
    if override.startswith("~"):
        raise ValueError(f"{override}: a setting cannot be removed; give it a value, null if it allows none")
    raise ValueError(f"+{key}: nothing reads a setting of that name; without the + Hydra lists those there are")


def _fits(kind: type, value: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config with everything resolved, as dicts and lists.

    Raises:
        ValueError: If a value is missing, refers to something that is not there, is a number that is not finite, or
            names a class that no option of ours names, see ``launch/values.py``.
    """
    try:
        resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"the configuration is not complete: {str(error).splitlines()[0]}") from None
    assert isinstance(resolved, dict)
    return checked({str(key): current_names(value) for key, value in resolved.items()})


def one_line_errors(main: Callable[..., Any]) -> Callable[..., Any]:
    """Turn errors of the user's making (ValueError, OSError, our own) into one line and exit code 1, without traceback.

    A Ctrl-C that nothing has dealt with ends the process at once, with the shell's exit code for it. In a sweep the
    error is passed on, so that the launcher can report which member failed.
    """

    @functools.wraps(main)
    def wrapped(cfg: DictConfig) -> Any:
        door.begin()
        with one_line(except_if=lambda: HydraConfig.get().mode == RunMode.MULTIRUN):
            return main(cfg)

    return wrapped


@contextlib.contextmanager
def one_line(except_if: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """The same for a block; ``except_if`` says whether the error is to be passed on.

    Of several processes only the first to fail says so, and all end.
    """
    printable_logs()
    logging.raiseExceptions = False  # a log file on a full disk would add a traceback to every message
    try:
        yield
    except KeyboardInterrupt:
        if except_if():
            raise
        if distributed.first_to_end():
            log.warning("stopped at once")
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError, InstantiationException) as error:
        message = _message(error)
        if message is None or except_if():
            distributed.first_to_end()  # its traceback says enough
            raise
        log.debug("where it happened", exc_info=True)
        distributed.fail(message)
    except BaseException:
        distributed.first_to_end()
        raise


def _message(error: BaseException) -> str | None:
    """What to tell the user; None for errors that are ours and need their traceback."""
    if (lacking := missing_package(error)) is not None or isinstance(error, ModuleNotFoundError):
        return lacking
    if isinstance(error, InstantiationException):
        cause = error.__cause__
        return _message(cause) if isinstance(cause, ValueError | OSError) else str(error).replace("\n", " ")
    if isinstance(error, RuntimeError) and type(error) is RuntimeError:
        return None  # torch's own errors
    return str(error)


def protect_record(argv: Sequence[str], state: str) -> list[str]:
    """Let a run that has something to resume keep the record of the command that started it.

    Hydra writes ``.hydra`` before any of our checks, and a refused attempt must not be what ``resume=`` repeats.

    Args:
        argv: as ``expand_resume`` returns it. state: file of a run folder that holds what can be resumed.
    """
    if [argument for argument in argv if argument.startswith("dry_run=")][-1:] == ["dry_run=true"]:
        return _without_a_folder(argv)
    folder = text_of(argv, "hydra.run.dir")
    has_state = folder is not None and (Path(folder) / state).exists()
    return [*argv, "hydra.output_subdir=null"] if has_state else list(argv)


def _without_a_folder(argv: Sequence[str]) -> list[str]:
    """Let Hydra make no folder and no file; where the run would go is in ``run_dir`` all the same."""
    if is_sweep(argv):
        sys.exit("error: dry_run=true looks at one run; leave -m out")
    folders = [argument.split("=", 1)[1] for argument in argv if argument.startswith("hydra.run.dir=")]
    rest = [argument for argument in argv if not argument.startswith("hydra.")]
    run_dir = folders[-1] if folders else "${ckpt_path}/${hydra:runtime.choices.method}"
    return [*rest, f"run_dir={run_dir}", "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]
