"""Builds the C++ of this folder for this processor, once per machine, and loads it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from utils.files import atomic_path
from utils.machine import cpu_info

log = logging.getLogger(__name__)

CHOICES = (True, False, "auto")
SOURCE = Path(__file__).with_name("attention.cpp")
FLAGS = [
    "-O3",
    "-march=native",
    "-std=c++17",
    "-fopenmp",
    "-shared",
    "-fPIC",
    "-fno-math-errno",
    "-fno-exceptions",
    "-w",
]
WIDE = 16  # float32 numbers of a vector of AVX-512
SECONDS = 300.0  # that a compiler may take; two are usual
NO_COMPILER = "a C++ compiler (on Debian and Ubuntu: apt-get install g++)"


class _Choice:
    """Of the whole process, as the number of threads is."""

    kernels: bool | str = "auto"


def choose_kernels(choice: bool | str) -> None:
    """Whether a CPU uses our kernels: true, false, or "auto", on processors with AVX-512 if they can be built.

    Raises:
        ValueError: If it is none of these, or true where they cannot be built.
    """
    if choice not in CHOICES:
        raise ValueError(f"cpu_kernels must be true, false or auto, got {choice!r}")
    if choice is True:
        try:
            load()
        except OSError as error:
            raise ValueError(f"cpu_kernels=true: {error}; or set cpu_kernels=auto") from None
    _Choice.kernels = choice


@contextlib.contextmanager
def kernels(choice: bool | str) -> Iterator[None]:
    """``choose_kernels`` for a while."""
    before = _Choice.kernels
    choose_kernels(choice)
    try:
        yield
    finally:
        _Choice.kernels = before


def chosen() -> ctypes.CDLL | None:
    """The kernels, if they are to be used."""
    if _Choice.kernels is False:
        return None
    return load() if _Choice.kernels is True else _worthwhile()


@functools.cache  # also that there are none: it is said once
def _worthwhile() -> ctypes.CDLL | None:
    """Narrower vectors than AVX-512's are what torch's own kernel is written for."""
    if "avx512f" not in cpu_info():
        return None
    try:
        built = load()
    except OSError as error:
        log.warning("attention is slower on this CPU than it could be: %s", error)
        return None
    return built if built.lanes() == WIDE else None


@functools.cache
def load() -> ctypes.CDLL:
    """The kernels, from the user's cache (``XDG_CACHE_HOME``, else ``~/.cache``) if they were built before.

    Raises:
        OSError: Saying what is missing.
    """
    compiler = find_compiler()
    if compiler is None:
        raise OSError(f"our kernels need {NO_COMPILER}")
    name = f"kernels-{_fingerprint(compiler)}.so"
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gradient-world-models")
        with contextlib.suppress(OSError):
            return _opened(folder / name)
        with atomic_path(folder / name) as temporary:
            _compile(compiler, temporary)
        return _opened(folder / name)
    except (OSError, RuntimeError):  # no home, a disk that is full or read-only, one from which no code is run
        with tempfile.TemporaryDirectory() as other:
            _compile(compiler, Path(other, name))
            return _opened(Path(other, name))  # what is loaded needs its file no more


def find_compiler() -> str | None:
    """The C++ compiler that ``CXX`` names, or a usual one."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)


def _compile(compiler: str, path: Path) -> None:
    command = [compiler, *FLAGS, "-o", str(path), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OSError(f"our kernels were not built: {error}") from None
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise OSError(f"our kernels were not built by {compiler}: {said[:300]}")


def _opened(path: Path) -> ctypes.CDLL:
    opened = ctypes.CDLL(str(path))
    opened.attend.argtypes = [ctypes.c_void_p, ctypes.c_float, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    opened.attend.restype = None
    return opened


def _fingerprint(compiler: str) -> str:
    """Of all that the built file depends on: a home may be shared by machines with other processors."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    described = [line for line in cpu_info().splitlines() if line.startswith(("model name", "flags", "Features"))]
    parts = [version, " ".join(FLAGS).encode(), "\n".join(sorted(set(described))).encode()]
    parts += [path.read_bytes() for path in sorted(SOURCE.parent.iterdir()) if path.suffix in (".cpp", ".h")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
