"""The settings of a command, asked for from within Python instead of on a command line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from hydra.errors import InstantiationException

from launch.command_line import parse
from launch.composing import Composer, open_folder
from launch.named_environment import with_config_name
from launch.names import REFUSED, Names
from launch.paths import readable_paths
from utils.moved_settings import current_overrides
from utils.schema import Settings

S = TypeVar("S", bound=Settings)


def settings_of(schema: type[S], default: str, words: Sequence[str], folder: Path | None = None) -> S:
    """Compose and check the settings that a command line would give.

    Args:
        schema: What they must be.
        default: Name of the config where the words name neither an environment nor a model of one of ours.
        words: As on the command line: ``planner=mpc_cem``, ``ckpt_path=outputs/wall``.
        folder: What ``--config-dir`` would name.

    Raises:
        ValueError: In one line, if a name or a value is wrong.
    """
    given = with_config_name(current_overrides(readable_paths(words)))
    name, given = (given[1], given[2:]) if given[:1] == ["--config-name"] else (default, given)
    if folder is not None:
        open_folder(folder)
    composer = Composer(name, folder)
    Names(composer, given).check(sweep=False)
    try:
        return parse(composer.config(given), schema)
    except REFUSED as error:
        raise ValueError(" ".join(str(error).split())) from None


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Raise what a class said of its arguments, without Hydra's account of where it was built."""
    try:
        yield
    except InstantiationException as error:
        raise error.__cause__ if isinstance(error.__cause__, ValueError | OSError) else error from None
