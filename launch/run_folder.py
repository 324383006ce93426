"""The folder of a run, taken before anything is written into it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launch.command_line import one_line
from launch.record import FILENAME, read_record, why_busy
from utils.files import own_file
from utils.folder_lock import LOCK, FolderInUseError, hold, is_seen_elsewhere, release, was_made
from utils.links import RUN_SUBFOLDERS, check_contents
from utils.machine import check_writable
from utils.process_identity import is_here

IN_PLACE = ("*.log", "logs.json", ".hydra/*")
"""Files of a run folder that are opened for writing, by Hydra or us, and not replaced."""

BEGINNING = (".hydra", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", FILENAME, LOCK)
"""Names in a run folder before the work begins; beside them the log, ``*.log``."""


class TakeRunFolder(Callback):
    """Takes the folder of a run before Hydra writes its own files there; looks at that of a sweep."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """End the process with one line if the folder is in use, or would make us write elsewhere."""
        folder = _named(config, "hydra.run.dir")
        if folder is not None and not config.get("dry_run"):  # which writes nothing
            with one_line():
                check_writable("hydra.run.dir", folder)
                _check_names(folder, config.hydra)
                take_run_folder(folder, (*RUN_SUBFOLDERS, str(config.hydra.output_subdir)))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Do the same for the folder of a sweep, whose members take their folders themselves."""
        folder = _named(config, "hydra.sweep.dir")
        if folder is not None:
            with one_line():
                check_writable("hydra.sweep.dir", folder)
                check_contents(folder, (".submitit",))
                own_file(folder / "multirun.yaml")


def take_run_folder(folder: Path, subfolders: Sequence[str] = RUN_SUBFOLDERS) -> bool:
    """Hold the folder of a run, see ``utils.folder_lock.hold``; nothing else in it is changed.

    Raises:
        ValueError: If it cannot be made or written.
        FolderInUseError: If another process uses it.
        LinkError: If something in it is a link that would lead what is written elsewhere.
    """
    check_writable("run_dir (hydra.run.dir)", folder)
    check_contents(folder, subfolders)
    is_new = hold(folder)
    if is_new:
        try:
            _refuse_if_recorded(folder)
            for path in [path for pattern in IN_PLACE for path in folder.glob(pattern)]:
                own_file(path)
        except BaseException:
            release(folder)
            raise
    return is_new


@contextlib.contextmanager
def run_folder(folder: Path) -> Iterator[None]:
    """Hold the folder of a run for the block, unless this process holds it already."""
    is_new = take_run_folder(folder)
    try:
        yield
    finally:
        if is_new:
            release(folder)


def remove_beginning(folder: Path) -> None:
    """Remove what every start leaves, after one that failed, if the folder was made for it and holds no more.

    The folder itself goes with its lock, see ``release``.
    """
    if not was_made(folder):
        return
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    if all(name in BEGINNING or ("/" not in name and name.endswith(".log")) for name in paths):
        for name in sorted(paths.keys() - {LOCK}, reverse=True):  # what is in .hydra before .hydra
            paths[name].rmdir() if name == ".hydra" else paths[name].unlink()


def _check_names(folder: Path, settings: DictConfig) -> None:
    """Refuse what stands in the way of the files that Hydra writes first, which would be a traceback of its own.

    Raises:
        ValueError: Naming the folder and what is in the way.
    """
    record, journal = settings.output_subdir, folder / f"{OmegaConf.select(settings, 'job.name')}.log"
    if folder.is_dir() and record is not None and (folder / str(record)).is_file():
        raise ValueError(f"hydra.run.dir={folder}: {folder / str(record)} is a file, where a folder is made; remove it")
    if folder.is_dir() and journal.is_dir():
        raise ValueError(f"hydra.run.dir={folder}: {journal} is a folder, where the log is written; remove it")


def _refuse_if_recorded(folder: Path) -> None:
    """Refuse a folder where a version without locks, or another machine that does not see ours, is at work."""
    record = read_record(folder)
    with contextlib.suppress(KeyError, IndexError, TypeError):  # a damaged record tells nothing
        process = record["attempts"][-1]["process"] if record else None
        if record is None or process is None or (is_here(process) and process["pid"] == os.getpid()):
            return
        if (is_here(process) or not is_seen_elsewhere(folder)) and (who := why_busy(record)):
            since = record["attempts"][-1].get("started", "an unknown time")
            raise FolderInUseError(
                f"run folder {folder} is in use by {who} since {since}: wait for it to end, or choose another "
                "hydra.run.dir"
            )


def _named(config: DictConfig, key: str) -> Path | None:
    """Return a folder that a composed config names; None if Hydra will refuse the config."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)  # the folder may depend on what was chosen
    try:
        return Path(str(OmegaConf.select(config, key, throw_on_missing=True)))
    except OmegaConfBaseException:
        return None
    finally:
        HydraConfig.instance().cfg = before
