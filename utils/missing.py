"""One line for a package that is not installed. Import this before anything that may be missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml", "hydra": "hydra-core",
            "hydra_plugins": "hydra-submitit-launcher", "pygame": "pygame-ce", "lance": "pylance"}  # fmt: skip
"""Packages whose name is not the one that is imported."""


def missing_package(error: BaseException | None) -> str | None:
    """Say which package is missing and how to get it; None if the error is another, or about code of ours.

    The error may be the cause of one of Hydra's.
    """
    name = missing_module(error).partition(".")[0]
    if not name or (ROOT / name).is_dir() or (ROOT / f"{name}.py").exists():
        return None
    package = PACKAGES.get(name, name)
    return (
        f"the package {package} is not installed (import {name}): pip install {package}, or all of them: pip install "
        "-r requirements.lock"
    )


def missing_module(error: BaseException | None) -> str:
    """Give the dotted name that could not be imported, here or in a cause of the error; "" if there is none."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__
    return (error and error.name) or ""


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    message = missing_package(error)
    if message is None:
        sys.__excepthook__(kind, error, trace)
    else:
        sys.stderr.write(f"error: {message}\n")


if sys.excepthook is sys.__excepthook__:
    sys.excepthook = _excepthook
