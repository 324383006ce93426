"""Is everything there that this needs? ``python -m doctor``: one line for each part, with its remedy."""

from __future__ import annotations

import argparse
import atexit
import logging
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from doctor import file_checks, installation
from doctor.installation import Missing
from utils.printable import end_quietly, printable_logs

log = logging.getLogger("doctor")

OK, NOTE, FAILED = "ok", "note", "FAIL"


def examine(title: str, check: Callable[[], str]) -> str:
    """Say how one check went; returns ``OK``, ``NOTE`` (only some uses need it) or ``FAILED``."""
    try:
        found, remedy, level = check(), "", OK
    except Missing as missing:
        found, remedy, level = str(missing), f" -> {missing.remedy}", FAILED if missing.required else NOTE
    except Exception as error:  # libraries that are broken raise what they like, and that is what is looked for here
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        found, remedy, level = reason, " -> install it anew: make setup", FAILED
    log.info("%-5s %-14s %s%s", level, title, found, remedy)
    return level


def examinations(given: argparse.Namespace) -> Iterator[tuple[str, Callable[[], str]]]:
    """Titles and checks, the cheap and general ones first."""
    yield "Python", installation.python
    yield "packages", installation.packages
    yield "torch", installation.torch_works
    yield "GPU", installation.gpu
    yield "compiler", installation.compiler
    yield "processors", installation.processors
    yield "open files", installation.open_files
    yield "shared memory", installation.shared_memory
    for title, folder in (("disk", Path.cwd()), ("temporary disk", None)):
        yield title, partial(installation.disk, folder)
    yield "videos", installation.videos
    for name in ("wall", "pusht"):
        yield f"{name} images", partial(installation.named_simulator, name)
    for back_end in ("egl", "osmesa"):
        yield f"OpenGL {back_end}", partial(installation.opengl, back_end)
    yield "point_maze", installation.any_opengl
    yield "DINOv2", partial(file_checks.encoder_weights, given.weights)
    yield "data sets", partial(file_checks.data_root, given.data)
    for env, folder in file_checks.data_sets(given.data):
        yield f"{env} data", partial(file_checks.data_set, env, folder, whole=given.data is not None)
    if given.checkpoint is not None:
        yield "checkpoint", partial(file_checks.checkpoint, given.checkpoint)
    for folder in given.config_dir or []:
        for path in (*sorted(folder.glob("env/*.yaml")), *sorted(folder.glob("dataset/*.yaml"))):
            yield f"{path.parent.name}={path.stem}", partial(_of_the_user, partial(file_checks.own_option, path))


def _of_the_user(check: Callable[[], str]) -> str:
    """Run a check of a user's class, whose errors say nothing about this installation."""
    try:
        return check()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise Missing(f"not checked: {reason}", "pytest tests/contracts --config-dir says more") from error


def main() -> None:
    """Exit code 1 if something fails that everything needs, or that was named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m doctor", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of data sets, or of one: every frame of it is read")
    parser.add_argument("--checkpoint", type=Path, help="model directory (ckpt_path) to look at")
    parser.add_argument("--weights", type=Path, help="file of DINOv2 weights (encoder.weights) to look at")
    parser.add_argument(
        "--config-dir", type=Path, action="append", help="folder with environments and formats of your own to look at"
    )
    given = parser.parse_args()
    sys.path.extend(str(folder.resolve()) for folder in given.config_dir or [])
    printable_logs()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    logging.raiseExceptions = False  # where the reader of a pipe has gone, there is nobody to tell
    atexit.register(end_quietly)
    levels = [examine(title, check) for title, check in examinations(given)]
    failed, notes = levels.count(FAILED), levels.count(NOTE)
    log.info("%d of %d checks failed, %d notes", failed, len(levels), notes)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
