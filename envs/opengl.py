"""OpenGL without a screen: choosing what draws, on machines with and without a GPU."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

AUTOMATIC = ("", "enable", "enabled", "on", "true", "1")  # values of MUJOCO_GL, as in MuJoCo
SWITCHED_OFF = ("disable", "disabled", "off", "false", "0")
BACK_ENDS = {"egl": "egl", "osmesa": "osmesa", "glfw": "glfw", "glx": "glfw", "wgl": "glfw", "cgl": "cgl"}
DEBIAN_PACKAGES = {"egl": "libegl1 libgl1", "osmesa": "libosmesa6"}
DEVICE = "MUJOCO_EGL_DEVICE_ID"  # which of several GPUs draws, by MuJoCo's counting
CONTEXT_SIZE = 64  # pixels; nothing is drawn into the context's own picture
SMALLEST_FONT = 50  # per cent; no text is drawn
GL_RENDERER = 0x1F01  # from the OpenGL specification


class OpenGLError(RuntimeError):
    """There is no OpenGL to draw with, or not for this thread."""


class WrongDeviceError(OpenGLError):
    """The GPU that was named does not draw, but without naming one there is OpenGL."""


class Context(Protocol):
    """The part that contexts of all MuJoCo back ends share."""

    def make_current(self) -> None:
        """Direct OpenGL calls of this thread to the context."""

    def free(self) -> None:
        """Release it."""


@contextlib.contextmanager
def _environment(**variables: str | None) -> Iterator[None]:
    """Set environment variables for a moment; None removes one."""
    before = {name: os.environ.get(name) for name in variables}
    _set_environment(variables)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


# Importing MuJoCo loads the OpenGL that MUJOCO_GL names. That fails where it is not installed, although physics needs
# none, and loads Mesa's LLVM, see ``_make_way_for_triton``. Here OpenGL is loaded when the first image is drawn. Code
# of the same process that uses mujoco.Renderer should import mujoco before this module.
with _environment(MUJOCO_GL=None):
    import mujoco


class Graphics:
    """The OpenGL of this process: one context, in which all that draws has its own buffers.

    Attributes:
        back_end: Egl, osmesa, glfw or cgl.
        driver: Name of what draws, e.g. "llvmpipe (LLVM 15.0.6, 256 bits)" for Mesa without a GPU.
    """

    def __init__(self) -> None:
        """Create the context, with the back end of MUJOCO_GL or else the first that works.

        Raises:
            ValueError: If MUJOCO_GL is not a back end.
            OpenGLError: If nothing works, naming the packages to install.
        """
        self._buffers: list[mujoco.MjrContext] = []
        self._thread = threading.get_ident()
        with _make_way_for_triton():
            self.back_end, self.driver, self._context = _working_context()
        atexit.register(self.close)  # before the libraries are gone, or they complain
        log.debug("OpenGL: %s, %s", self.back_end, self.driver)

    def buffers(self, model: mujoco.MjModel, size: int) -> mujoco.MjrContext:
        """Load what MuJoCo needs to draw ``model`` into images of up to ``size`` x ``size`` pixels.

        Raises:
            OpenGLError: If it is too much for this OpenGL.
        """
        self.make_current()
        model.vis.global_.offwidth = model.vis.global_.offheight = size  # read here and nowhere else
        # MuJoCo finds the functions of OpenGL in any library that is loaded, failed ones too, unless told in which
        with _environment(MUJOCO_GL=self.back_end):
            try:
                self._buffers.append(mujoco.MjrContext(model, SMALLEST_FONT))
            except mujoco.FatalError as error:
                raise OpenGLError(f"no images of {size} pixels with {self.driver}: {error}") from error
        return self._buffers[-1]

    def make_current(self) -> None:
        """Direct OpenGL calls to this context; others in the process may have taken them over since.

        Raises:
            OpenGLError: If called from another thread than the one that the context belongs to.
        """
        if threading.get_ident() != self._thread:
            raise OpenGLError(
                "images must be drawn in the thread that drew the first one of the process; use processes instead"
            )
        self._context.make_current()

    def close(self) -> None:
        """Release everything, at exit."""
        atexit.unregister(self.close)
        with contextlib.suppress(OpenGLError):  # the thread is gone, and the process will be
            self.make_current()
            while self._buffers:
                self._buffers.pop().free()
            self._context.free()


@functools.cache
def graphics() -> Graphics:
    """The OpenGL of this process, started by the first call."""
    return Graphics()


def _working_context() -> tuple[str, str, Context]:
    """Back end, driver and context; see ``Graphics``."""
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    if wanted in SWITCHED_OFF:
        raise OpenGLError(f"MUJOCO_GL={wanted} switches drawing off; unset it to get images")
    if wanted not in (*AUTOMATIC, *BACK_ENDS):
        raise ValueError(f"MUJOCO_GL must be one of {', '.join(BACK_ENDS)} or unset, got {wanted!r}")
    names = [BACK_ENDS[wanted]] if wanted in BACK_ENDS else _candidates()
    failures = []
    for name in names:
        try:
            return name, *(_egl_context() if name == "egl" else _new_context(name))
        except WrongDeviceError:
            raise
        except Exception as error:  # the libraries raise what they like
            failures.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
    subject = f"MUJOCO_GL={wanted} does not work here" if wanted in BACK_ENDS else "no OpenGL to draw images with"
    packages = [DEBIAN_PACKAGES[name] for name in names if name in DEBIAN_PACKAGES]
    advice = f"on Debian and Ubuntu: apt-get install {' (or '.join(packages)}{')' * (len(packages) - 1)}"
    raise OpenGLError(f"{subject}; {advice if packages else 'set MUJOCO_GL to another'} [{'; '.join(failures)}]")


def _egl_context() -> tuple[str, Context]:
    """A context of EGL on the device that is named, or else, of several processes of a run, each on its own GPU.

    Raises:
        WrongDeviceError: If the named one does not work, and another one does.
    """
    named, own = os.environ.get(DEVICE), os.environ.get("LOCAL_RANK", "")
    if named is None and own.isdecimal():
        with contextlib.suppress(Exception), _environment(**{DEVICE: own}):
            return _new_context("egl")
    try:
        return _new_context("egl")
    except Exception as error:
        if named is None or not _draws_without_a_name():
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WrongDeviceError(
            f"{DEVICE}={named} names no device that draws; unset it, or name another [{reason}]"
        ) from error


def _draws_without_a_name() -> bool:
    with contextlib.suppress(Exception), _environment(**{DEVICE: None}):
        _new_context("egl")[1].free()
        return True
    return False


def _candidates() -> list[str]:
    """Back ends to try, the best first."""
    if sys.platform == "darwin":
        return ["cgl", "glfw"]
    if sys.platform != "linux":
        return ["glfw"]
    has_screen = "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return ["egl", "osmesa"] + ["glfw"] * has_screen  # EGL uses a GPU where there is one


def _new_context(name: str) -> tuple[str, Context]:
    """Create a context, or leave no trace, so that another library can be tried; returns its driver, too.

    PyOpenGL, which MuJoCo's back ends use, settles on one library when it is first imported.
    """
    modules, platform = set(sys.modules), os.environ.get("PYOPENGL_PLATFORM")
    # Without a GPU, Mesa draws, by default with a thread per core. An image of 224 pixels gains nothing from that,
    # and processes that draw at the same time lose.
    threads = os.environ.get("LP_NUM_THREADS", "0")
    try:
        with _environment(LP_NUM_THREADS=threads):
            context: Context = importlib.import_module(f"mujoco.{name}").GLContext(CONTEXT_SIZE, CONTEXT_SIZE)
            context.make_current()
        return _driver_name(), context
    except Exception:
        for module in set(sys.modules) - modules:
            if module.startswith(("OpenGL", f"mujoco.{name}")):
                del sys.modules[module]
        _set_environment({"PYOPENGL_PLATFORM": platform})
        raise


def _driver_name() -> str:
    """Ask the current context what draws; importing OpenGL.GL for this would take a tenth of a second."""
    library = importlib.import_module("OpenGL.platform").PLATFORM.GL
    get_string = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_uint)(("glGetString", library))
    name: bytes | None = get_string(GL_RENDERER)
    if name is None:  # GLFW, for one, does not say so itself
        raise OpenGLError("no context was created")
    return name.decode(errors="replace")


@contextlib.contextmanager
def _make_way_for_triton() -> Iterator[None]:
    """Avoid a crash: triton and Mesa each bring a copy of LLVM, and triton's cannot be loaded after Mesa's.

    Torch imports triton when an optimizer is created or something is compiled, so that planning by gradient descent
    in a process that has drawn would end in a segmentation fault. If torch is there, triton is loaded first. If not,
    it would cost every process that only simulates half a second and 100 MB; a torch that comes later then finds no
    triton, which it can do without.
    """
    if "torch" in sys.modules and not _has_llvm() and importlib.util.find_spec("triton") is not None:
        with contextlib.suppress(ImportError):
            importlib.import_module("triton")
    try:
        yield
    finally:
        if "triton" not in sys.modules and _has_llvm():
            sys.modules["triton"] = None  # type: ignore[assignment]  # importing it is an ImportError now


def _has_llvm() -> bool:
    """Tell whether a driver has loaded LLVM into this process."""
    maps = Path("/proc/self/maps")
    return maps.exists() and b"libLLVM" in maps.read_bytes()
