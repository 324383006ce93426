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

from utils.files import atomic_path
from utils.machine import cpu_info

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("attention.cpp")
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC"]
FLAGS += ["-fno-math-errno", "-fno-exceptions", "-w"]
WIDE = 16  # float32 numbers of a vector of AVX-512
SECONDS = 60.0  # that a compiler may take; two are usual
NO_COMPILER = "a C++ compiler (on Debian and Ubuntu: apt-get install g++)"
_LOCK = threading.Lock()  # of the building


def uses_kernels(choice: bool | str) -> bool:
    """Decide whether a CPU uses our kernels: true, false, or "auto", on processors with AVX-512 if they can be built.

    Raises:
        ValueError: If it is true where they cannot be built.
    """
    if choice is True:
        try:
            load()
        except OSError as error:
            raise ValueError(f"speed.cpu_kernels=true: {error}; or set speed.cpu_kernels=auto") from None
    return bool(choice) and (choice is True or _are_worthwhile())


@functools.cache  # also that there are none: it is said once
def _are_worthwhile() -> bool:
    """Narrower vectors than AVX-512's are what torch's own kernel is written for."""
    if "avx512f" not in cpu_info():
        return False
    try:
        return load().lanes() == WIDE
    except OSError as error:
        log.warning("attention is slower on this CPU than it could be: %s", error)
        return False


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
    kept = _cache() / f"kernels-{_fingerprint(compiler)}.so"
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


def _cache() -> Path:
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
    if not hasattr(opened, "attend"):
        raise OSError(f"{path} holds no kernels of ours")
    opened.attend.argtypes = [ctypes.c_void_p, ctypes.c_float, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    opened.attend.restype = None
    return opened


def _fingerprint(compiler: str) -> str:
    """Hash all that the built file depends on: a home may be shared by machines with other processors."""
    version = _ran([compiler, "--version"]).stdout.encode()
    described = [line for line in cpu_info().splitlines() if line.startswith(("model name", "flags", "Features"))]
    parts = [version, " ".join(FLAGS).encode(), "\n".join(sorted(set(described))).encode()]
    parts += [path.read_bytes() for path in sorted(SOURCE.parent.iterdir()) if path.suffix in (".cpp", ".h")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
