"""Refusing links in the folders that we write, so that nothing outside is overwritten or removed through them.

A folder that the user names may itself be a link, and so may its parents; what lies below it may not.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

RUN_SUBFOLDERS = (".hydra", "checkpoints", "open_loop", "replay", "wandb", "tensorboard", "videos")
"""Folders of a run that we write into."""

_guarded: set[str] = set()  # absolute paths of the folders that this process writes into


class LinkError(ValueError):
    """What should be written is a link, or no file at all; the message says what to do."""


def guard(folder: Path) -> None:
    """Refuse from now on to write through links below ``folder``, which may be one itself."""
    _guarded.add(_absolute(folder))


def unguard(folder: Path) -> None:
    """Undo ``guard``."""
    _guarded.discard(_absolute(folder))


def refuse_links(path: Path, below: Path | None = None) -> None:
    """Refuse to write a file or folder that is a link, or has one on the way to it.

    Args:
        path: What is about to be written.
        below: Where the way to it begins; None means the guarded folder that it lies in.

    Raises:
        LinkError: If there is a link.
    """
    chain, first = [path], _guarded if below is None else {_absolute(below)}
    for parent in path.parents:
        if _absolute(parent) in first:
            break
        chain.append(parent)
    else:
        chain = [path]  # in no folder of ours: the user has named the way to it
    for place in chain:
        if place.is_symlink():
            raise LinkError(_complaint(place))


def check_contents(folder: Path, subfolders: Sequence[str] = RUN_SUBFOLDERS, strict: bool = False) -> None:
    """Look for links in a folder before something is written into it.

    Args:
        folder: May be a link itself, or not exist.
        subfolders: Names of those that are written into.
        strict: Refuse links to folders of other names, too.

    Raises:
        LinkError: If a file or one of ``subfolders`` is a link, has links in it, or is a pipe or a device.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.is_symlink():
                if strict or entry.name in subfolders or not entry.is_dir():
                    raise LinkError(_complaint(path))
            elif not (entry.is_file() or entry.is_dir()):
                raise LinkError(_complaint(path))
            elif entry.name in subfolders and entry.is_dir():
                _check_tree(path)


def _check_tree(folder: Path) -> None:
    inside = os.path.realpath(folder)
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            # Weights & Biases makes links from one of its files to another
            is_its_own = folder.name == "wandb" and Path(os.path.realpath(path)).is_relative_to(inside)
            if path.is_symlink():
                if not is_its_own:
                    raise LinkError(_complaint(path))
            elif not (path.is_file() or path.is_dir()):
                raise LinkError(_complaint(path))


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  (resolving would follow the links)


def _complaint(path: Path) -> str:
    kind = f"a link to {str(path.readlink())!r}" if path.is_symlink() else "neither a file nor a folder"
    return (
        f"{path} is {kind}, and nothing is written through such things: remove it (rm {shlex.quote(str(path))}), or "
        "choose another folder"
    )
