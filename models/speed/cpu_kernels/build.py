"""Building the C++ of this folder for this processor, once per machine, and loading it."""

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
import threading
from pathlib import Path

import torch
from torch.profiler import record_function

from utils.files import atomic_path
from utils.machine import cpu_info

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC"]
FLAGS += ["-fno-math-errno", "-fno-exceptions", "-w"]
SECONDS = 60.0  # that a compiler may take; two are usual
NO_COMPILER = "a C++ compiler (on Debian and Ubuntu: apt-get install g++)"
_INT, _FLOAT, _PLACE = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
SIGNATURES = {
    "attend": [_PLACE, _FLOAT, _INT, _INT, _INT],
    "add_norm": [_PLACE, _FLOAT, _INT, _INT],
    "gelu": [_PLACE, _INT],
    "pack": [_PLACE, *[ctypes.c_long] * 4, _PLACE],
    "pack_half": [_PLACE, *[ctypes.c_long] * 4, _PLACE],
    "transformer": [_PLACE, _PLACE, _FLOAT, *[_PLACE] * 4, _INT],
    "transformer_spent": [_PLACE],
    "mask": [ctypes.c_uint64, ctypes.c_int64, ctypes.c_long, ctypes.c_long, _PLACE],
}
_LOCK = threading.Lock()  # of the building


def check_kernels() -> None:
    """Build and load our kernels.

    Raises:
        ValueError: If they cannot be had.
    """
    try:
        load()
    except OSError as error:
        raise ValueError(f"speed.cpu_kernels=true: {error}; or set speed.cpu_kernels=auto") from None


@functools.cache  # also that there are none: it is said once
def can_load() -> bool:
    """Whether our kernels are built or can be; if not, why is logged."""
    try:
        load()
    except OSError as error:
        log.warning("planning and training are slower on this CPU than they could be: %s", error)
        return False
    return True


def has_tiles() -> bool:
    """Whether our kernels multiply in bf16 by tile registers (AMX) here; the system is asked to let them."""
    return can_load() and bool(load().has_tiles())


def load() -> ctypes.CDLL:
    """Load the kernels from the user's cache (``XDG_CACHE_HOME``, else ``~/.cache``) if they were built before.

    Raises:
        OSError: Saying what is missing.
    """
    with _LOCK:
        return _load()


@functools.cache
def _load() -> ctypes.CDLL:
    compiler = find_compiler()
    if compiler is None:
        raise OSError(f"our kernels need {NO_COMPILER}")
    kept = cache_folder() / f"kernels-{_fingerprint(compiler)}.so"
    with contextlib.suppress(OSError):
        if kept.stat().st_uid == os.getuid():
            return _opened(kept)
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, kept.name)
        _compile(compiler, built)
        with contextlib.suppress(OSError):  # a disk that is full or read-only: the next process builds it again
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with atomic_path(kept) as temporary:
                temporary.write_bytes(built.read_bytes())
        with contextlib.suppress(OSError):
            return _opened(built)  # what is loaded needs its file no more
    return _opened(kept)  # from where temporary files are, no code may be run


def call(name: str) -> contextlib.AbstractContextManager[object]:
    """Let torch's profiler see what happens in a kernel of ours, if it is on."""
    return record_function(name) if torch.autograd._profiler_enabled() else contextlib.nullcontext()


def cache_folder() -> Path:
    """Where built kernels and measurements are kept, for the user."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gradient-world-models")
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir(), f"gradient-world-models-{os.getuid()}")


def find_compiler() -> str | None:
    """Find the C++ compiler that ``CXX`` names, or a usual one."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)


def _compile(compiler: str, path: Path) -> None:
    done = _ran([compiler, *FLAGS, "-o", str(path), str(SOURCE)])
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise OSError(f"our kernels were not built by {compiler}: {said[:300]}")


def _ran(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OSError(f"our kernels were not built: {error}") from None


def _opened(path: Path) -> ctypes.CDLL:
    opened = ctypes.CDLL(str(path))
    for name, types in SIGNATURES.items():
        if not hasattr(opened, name):
            raise OSError(f"{path} holds no kernels of ours")
        getattr(opened, name).argtypes, getattr(opened, name).restype = types, None
    for packed in (opened.packed, opened.packed_half):
        packed.argtypes, packed.restype = [ctypes.c_long] * 2, ctypes.c_long
    opened.transformer_room.argtypes, opened.transformer_room.restype = [_PLACE, _INT], ctypes.c_long
    return opened


def _fingerprint(compiler: str) -> str:
    """Hash all that the built file depends on: a home may be shared by machines with other processors."""
    version = _ran([compiler, "--version"]).stdout.encode()
    parts = [version, " ".join(FLAGS).encode(), processor().encode()]
    parts += [path.read_bytes() for path in sorted(SOURCE.parent.iterdir()) if path.suffix in (".cpp", ".h")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def processor() -> str:
    """Name the processor and what it can do."""
    described = [line for line in cpu_info().splitlines() if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(sorted(set(described)))
