"""What the command lines share: composed configs as plain data, errors as one line, records that stay."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launch import startup
from launch.conf import groups
from launch.grammar import is_sweep, key_of, text_of
from launch.values import checked
from utils import distributed
from utils.annotations import alternatives
from utils.missing import missing_module, missing_package
from utils.moved_classes import current_names
from utils.printable import printable_logs
from utils.schema import SettingError, Settings, parsed

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)


def overridden_keys(overrides: Sequence[str]) -> set[str]:
    """Keys that a list of Hydra overrides sets: "num_hist", "encoder", "training.batch_size"."""
    return set(map(key_of, overrides))


def parse(cfg: DictConfig, schema: type[S]) -> S:
    """Make typed settings of a composed config; behind this nothing reads the config itself.

    Raises:
        ValueError: Naming the key as the user writes it, the value and what is allowed.
    """
    required = [name for name, hint in get_type_hints(schema).items() if type(None) not in alternatives(hint)]
    for group in groups().keys() & set(required):
        if OmegaConf.select(cfg, group, throw_on_resolution_failure=False) is None:
            options = ", ".join(groups()[group])
            raise ValueError(
                f"{group}=null: there must be one; choose among {options}, or leave it out for the default"
            )
    try:
        return parsed(schema, plain(cfg))
    except SettingError as error:
        raise ValueError(f"{_written(cfg, error.key)}{error.reason}") from None


def _written(cfg: DictConfig, key: str) -> str:
    """The key that a value was written under: ``gd_opt_steps`` is that of ``method.planner.opt_steps``."""
    raw = OmegaConf.to_container(cfg, resolve=False)
    for name in key.split("."):
        raw = raw.get(name) if isinstance(raw, dict) else None
    reference = re.match(r"\$\{(?:oc\.select:)?([\w.]+)", raw) if isinstance(raw, str) else None
    if reference is None or OmegaConf.select(cfg, reference[1], throw_on_resolution_failure=False) is None:
        return key
    return _written(cfg, reference[1])


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
        startup.raise_on_interrupt()
        with one_line(except_if=lambda: HydraConfig.get().mode == RunMode.MULTIRUN):
            return main(cfg)

    return wrapped


@contextlib.contextmanager
def one_line(except_if: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Do as ``one_line_errors`` for a block; ``except_if`` says whether the error is to be passed on.

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
    target = re.search(r"Error locating target '([\w.]+)'", str(error))
    if target and missing_module(error).partition(".")[0] == target[1].partition(".")[0]:
        return f"there is no class {target[1]}: check its spelling, and that --config-dir names its folder"
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
        argv: As ``expand_resume`` returns it.
        state: File of a run folder that holds what can be resumed.
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
    # in quotes: an interpolation in another is none to Hydra's grammar of the command line
    run_dir = folders[-1] if folders else "'${runs_below:${ckpt_path}}/${hydra:runtime.choices.method}'"
    return [*rest, f"run_dir={run_dir}", "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout"]
