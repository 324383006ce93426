"""What every entry does around its work: a record in the run folder, sweeps, jobs that go back into their queue."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from launch.command_line import plain
from launch.record import FAILED, FINISHED, STOPPED, RunRecord, attempts_in_vain, read_record
from launch.run_folder import remove_beginning, take_run_folder
from launch.sweep import MEMBER, end_with_sweep, run_member, run_sweep
from utils import slurm
from utils.folder_lock import release
from utils.interrupts import StopRequested


def run_entry(main: Callable[[], Any], argv: Sequence[str]) -> None:
    """Call the function that Hydra has decorated, for one run or a sweep.

    Args:
        main: Composes from the command line.
        argv: Of the process, as Hydra will read it.

    Raises:
        SystemExit: If a member of a sweep failed.
        StopRequested: After a signal; in a SLURM job only if that is not requeued.
    """
    end_with_sweep()
    with slurm.requeued_when_stopped(is_outermost=MEMBER not in os.environ):
        run_sweep(main, argv)


def recorded(script: str, state: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Keep ``run.json`` in the folder of the run that ``main`` is; of a sweep, start its members as runs.

    Args:
        script: Path of the entry.
        state: File of a run folder that holds what can be resumed.
    """

    def decorate(main: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
        @functools.wraps(main)
        def wrapped(cfg: DictConfig) -> Any:
            config = _config(cfg)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return run_member(script, config)
            if config.get("dry_run"):
                return main(cfg)
            folder = Path(HydraConfig.get().runtime.output_dir)
            take_run_folder(folder)  # a config of the user's own may lack the callback that does it before Hydra writes
            try:
                record = RunRecord(folder, config, [*HydraConfig.get().overrides.task])
                return _record(record, folder / state, lambda: main(cfg))
            finally:  # a job that is put back in the queue may start elsewhere at once
                release(folder)

        return wrapped

    return decorate


def _config(cfg: DictConfig) -> Mapping[str, Any]:
    try:
        return plain(cfg)
    except ValueError:  # main will say what is missing; what is there is recorded
        unresolved = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(unresolved, dict)
        return {str(key): value for key, value in unresolved.items()}


def _record(record: RunRecord, state: Path, run: Callable[[], Any]) -> Any:
    begin = time.time()
    try:
        result = run()
    except StopRequested as stop:
        saved = state.exists() and state.stat().st_mtime >= begin
        record.end(STOPPED, f"stopped by {signal.Signals(stop.number).name}", saved=saved)
        stop.attempts_in_vain = attempts_in_vain(read_record(record.folder))
        raise
    except KeyboardInterrupt:
        record.end(STOPPED, "interrupted before it had begun")
        remove_beginning(record.folder)
        raise
    except BaseException as error:
        record.end(FAILED, _one_line(error))
        remove_beginning(record.folder)
        raise
    record.end(FINISHED, result=result if isinstance(result, int | float) else None)
    return result


def _one_line(error: BaseException) -> str:
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__  # what the class said, without Hydra's account of where
    return " ".join(str(error).split()) or type(error).__name__
