"""Choosing an OpenGL: what is not there is simulated, in processes of their own."""

import ctypes
import importlib.metadata
import os
import subprocess
import sys
import threading

import pytest

from envs import opengl
from envs.opengl import Graphics, OpenGLError, graphics

ALL_LIBRARIES = r"lib(EGL|GL|OpenGL|GLES\w*|OSMesa)\.so"
HIDE_LIBRARIES = """
import ctypes, re, sys
load = ctypes.CDLL.__init__
def refuse(self, name, *args, **kwargs):
    if sys.argv[1] and name and re.search(sys.argv[1], str(name)):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")
    load(self, name, *args, **kwargs)
ctypes.CDLL.__init__ = refuse
"""
SIMULATE = """
import os
import numpy as np
from envs.point_maze.simulator import PointMazeSimulator
before = dict(os.environ)
simulator = PointMazeSimulator(64)
simulator.reset(np.zeros(4) + 0.8, {})
simulator.step(np.ones((1, 2), np.float32))
"""
DRAW = """
assert simulator.render().std() > 10
from envs.opengl import graphics
changed = dict(set(os.environ.items()) ^ set(before.items()))
changed.pop("PYOPENGL_PLATFORM", None)
print(graphics().back_end, changed)
"""
TRY_TO_DRAW = """
try:
    simulator.render()
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""
OPTIMIZE = """
import torch
weights = torch.nn.Parameter(torch.ones(2, 2))
optimizer = torch.optim.AdamW([weights])
(weights @ torch.ones(2)).square().sum().backward()
optimizer.step()
actions = torch.zeros(5, 2, requires_grad=True)
torch.autograd.grad((actions @ weights.detach()).tanh().sum(), actions)
import torchvision
assert np.array_equal(simulator.render(), image)
print(sys.modules.get("triton") is not None)
"""


@pytest.fixture
def run(request):
    """Run Python code with some environment variables and without some libraries."""

    def run(code, hidden="", **variables):
        ours = {"MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY", "LP_NUM_THREADS"}
        ours |= {"MUJOCO_EGL_DEVICE_ID", "LOCAL_RANK"}
        environment = {name: value for name, value in os.environ.items() if name not in ours} | variables
        return subprocess.run(
            [sys.executable, "-c", HIDE_LIBRARIES + code, hidden],
            cwd=request.config.rootpath,
            env=environment,
            capture_output=True,
            text=True,
        )

    return run


def needs(*libraries):
    for library in libraries:
        try:
            ctypes.CDLL(library)
        except OSError as error:
            pytest.skip(str(error))


def has_triton():
    return any(found.metadata["Name"] == "triton" for found in importlib.metadata.distributions())


def needs_back_end(name):
    needs(*{"egl": ("libEGL.so.1", "libGL.so.1"), "osmesa": ("libOSMesa.so.8",)}[name])


@pytest.mark.render
@pytest.mark.parametrize("back_end", ["egl", "osmesa"])
def test_the_back_end_of_the_variable_draws_and_says_nothing_at_exit(back_end, run):
    needs_back_end(back_end)
    done = run(SIMULATE + DRAW, MUJOCO_GL=back_end)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{back_end} {{}}\n", "")


@pytest.mark.render
def test_egl_is_preferred(run):
    needs_back_end("egl")
    assert run(SIMULATE + DRAW).stdout == "egl {}\n"


@pytest.mark.render
@pytest.mark.parametrize(
    ("hidden", "variables"),
    [
        ("libEGL", {}),
        (r"lib(GL|OpenGL|GLES\w*)\.so", {}),  # only libegl1 is installed
        ("", {"__EGL_VENDOR_LIBRARY_DIRS": "/nowhere"}),  # a library without a driver
    ],
)
def test_osmesa_draws_where_egl_does_not_work(hidden, variables, run):
    needs_back_end("osmesa")
    done = run(SIMULATE + DRAW, hidden, **variables)
    assert (done.returncode, done.stdout) == (0, "osmesa {}\n")


@pytest.mark.render
def test_a_device_that_does_not_draw_is_named_and_processes_of_a_run_take_their_own(run):
    needs_back_end("egl")
    done = run(SIMULATE + TRY_TO_DRAW, MUJOCO_EGL_DEVICE_ID="97")
    assert done.stdout.startswith("WrongDeviceError: MUJOCO_EGL_DEVICE_ID=97 names no device that draws; unset it, ")
    assert done.stdout.count("\n") == 1
    assert run(SIMULATE + DRAW, LOCAL_RANK="97").stdout == "egl {}\n"  # more processes than devices


def test_the_own_device_is_that_of_the_local_rank(monkeypatch):
    asked = []

    def new_context(name):
        asked.append(os.environ.get(opengl.DEVICE))
        if asked[-1] == "3":
            raise RuntimeError("an integer between 0 and 0")
        return "driver", None

    monkeypatch.setattr(opengl, "_new_context", new_context)
    monkeypatch.delenv(opengl.DEVICE, raising=False)
    for rank in ("1", "3"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert opengl._egl_context() == ("driver", None)
    assert asked == ["1", "3", None] and opengl.DEVICE not in os.environ


@pytest.mark.parametrize("automatic", ["", "on"])
def test_without_any_the_error_names_what_to_install_and_physics_works(automatic, run):
    done = run(SIMULATE + TRY_TO_DRAW, ALL_LIBRARIES, MUJOCO_GL=automatic)
    assert done.returncode == 0
    assert done.stdout.startswith(
        "OpenGLError: no OpenGL to draw images with; "
        "on Debian and Ubuntu: apt-get install libegl1 libgl1 (or libosmesa6) [egl: "
    )
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(("back_end", "packages"), [("egl", "libegl1 libgl1"), ("osmesa", "libosmesa6")])
def test_a_back_end_that_was_asked_for_is_not_replaced(back_end, packages, run):
    done = run(SIMULATE + TRY_TO_DRAW, {"egl": "libEGL", "osmesa": "libOSMesa"}[back_end], MUJOCO_GL=back_end)
    assert done.returncode == 0
    assert f"MUJOCO_GL={back_end} does not work here; on Debian and Ubuntu: apt-get install {packages} [" in done.stdout


def test_a_back_end_that_needs_a_screen_says_so(run):
    done = run(SIMULATE + TRY_TO_DRAW, MUJOCO_GL="glfw")
    assert done.stdout.startswith("OpenGLError: MUJOCO_GL=glfw does not work here; set MUJOCO_GL to another [glfw: ")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [("elg", ValueError, "MUJOCO_GL must be one of egl, .*got 'elg'"), ("Off", OpenGLError, "MUJOCO_GL=off switches")],
)
def test_other_values_are_refused(value, error, message, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", value)
    with pytest.raises(error, match=message):
        Graphics()


@pytest.mark.parametrize(
    ("platform", "display", "expected"),
    [
        ("linux", None, ["egl", "osmesa"]),
        ("linux", ":0", ["egl", "osmesa", "glfw"]),
        ("darwin", None, ["cgl", "glfw"]),
        ("win32", None, ["glfw"]),
    ],
)
def test_what_is_tried(platform, display, expected, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    assert opengl._candidates() == expected


@pytest.mark.render
def test_another_thread_is_told_that_it_cannot_draw():
    try:
        graphics()
    except OpenGLError as error:
        pytest.skip(str(error))
    errors = []

    def use():
        try:
            graphics().make_current()
        except OpenGLError as error:
            errors.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "in the thread that drew the first" in errors[0]


@pytest.mark.render
@pytest.mark.slow
@pytest.mark.parametrize(
    ("back_end", "first", "keeps_triton"),
    [
        ("egl", "import torch", True),
        ("osmesa", "import torch", True),
        ("egl", "", False),  # torch comes after the first image
        ("osmesa", "import torch, mujoco", False),  # which has loaded OSMesa before anything of ours
    ],
)
def test_gradients_and_images_share_a_process(back_end, first, keeps_triton, run):
    """Without precautions creating the optimizer is a segmentation fault, see ``_make_way_for_triton``."""
    needs_back_end(back_end)
    done = run(first + SIMULATE + "image = simulator.render()" + OPTIMIZE, MUJOCO_GL=back_end)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{keeps_triton and has_triton()}\n"
