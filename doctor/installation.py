"""Checks of an installation: each returns what it found, or raises ``Missing``."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from packaging.requirements import Requirement

from datasets.formats.video import read_frames
from models.speed.compiling import what_triton_lacks
from models.speed.cpu_kernels.build import find_compiler
from utils.machine import as_size, available_cores, available_memory, free_bytes
from utils.pictures import write_mp4

REPOSITORY = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
LITTLE_DISK, LITTLE_SHARED_MEMORY, FEW_FILES = 10e9, 1e9, 1024
DRAW = "from envs.opengl import graphics; print(graphics().driver)"


class Missing(Exception):  # noqa: N818  (what is missing need not be an error)
    """Something is not there or does not work.

    Args:
        found: What is there in place of it.
        remedy: What to do.
        required: Whether everything needs it, or the user asked for it.
    """

    def __init__(self, found: str, remedy: str, required: bool = False) -> None:
        super().__init__(found)
        self.remedy, self.required = remedy, required


def python() -> str:
    """Old enough to be known, new enough to be able."""
    if sys.version_info < OLDEST_PYTHON:
        raise Missing(platform.python_version(), "make setup PYTHON=python3.12 (3.11 is the oldest)", required=True)
    return f"{platform.python_version()}, {sys.executable}"


def packages() -> str:
    """Compare what is installed with what ``pyproject.toml`` asks for."""
    wanted = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    problems = []
    for requirement in map(Requirement, wanted):
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            problems.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if problems:
        raise Missing("; ".join(problems), "make setup", required=True)
    return f"{len(wanted)} direct dependencies, as pyproject.toml asks"


def torch_works() -> str:
    """A product and its gradient."""
    weight = torch.ones(3, 3, requires_grad=True)
    (weight @ torch.ones(3, 3)).sum().backward()
    if weight.grad is None or weight.grad.sum() != 27:
        raise Missing(f"torch {torch.__version__} computes wrong gradients", "make setup", required=True)
    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def gpu() -> str:
    """Check that torch sees the GPU the system has, and computes on it."""
    if not torch.cuda.is_available():
        remedy = "none is needed; planning and training at full size want one"
        if shutil.which("nvidia-smi") is not None:
            remedy = "nvidia-smi is there: compare its CUDA version with torch's, and look at CUDA_VISIBLE_DEVICES"
        raise Missing(f"none that torch can use (built for CUDA {torch.version.cuda})", remedy)
    device = torch.device("cuda")
    product = torch.ones(64, 64, device=device, dtype=torch.bfloat16) @ torch.ones(64, 64, device=device).bfloat16()
    if (product != 64).any():
        raise Missing("wrong products in bf16", "set precision=float32, and update the driver", required=True)
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return f"{torch.cuda.device_count()} x {name}, {as_size(free)} of {as_size(total)} free, CUDA {torch.version.cuda}"


def compiler() -> str:
    """Find what builds kernels: ours for GPU and CPU, and torch.compile's, which are on by default on a GPU."""
    if torch.cuda.is_available() and (lacking := what_triton_lacks()):
        raise Missing("kernels cannot be built", f"training and planning are slower without {lacking}")
    found = find_compiler()
    if found is None:
        raise Missing("none", "attention on a CPU is slower, and torch.compile impossible there: apt-get install g++")
    return found


def processors() -> str:
    """Count the processors that this process may use, and its memory."""
    return f"{available_cores()} of {os.cpu_count()} cores usable, {as_size(available_memory())} of memory available"


def open_files() -> str:
    """Simulators and readers hold pipes and files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FEW_FILES:
        raise Missing(f"at most {soft}", f"ulimit -n {min(hard, 65536)}")
    return f"at most {soft}"


def shared_memory() -> str:
    """Readers hand batches over through it."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return "not a folder on this system"
    usage = shutil.disk_usage(folder)
    if usage.free < LITTLE_SHARED_MEMORY:
        found = f"{as_size(usage.free)} of {as_size(usage.total)} free in {folder}"
        raise Missing(found, "docker run --shm-size=8g, or env.num_workers=0")
    return f"{as_size(usage.free)} free in {folder}"


def disk(folder: Path | None) -> str:
    """Room and the right to write; None is the folder of temporary files."""
    folder = folder or Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = "work in a folder of your own, or set TMPDIR to one"
        raise Missing(f"{folder} cannot be written ({error.strerror})", remedy, required=True) from error
    free = free_bytes(folder)
    if free < LITTLE_DISK:
        raise Missing(f"{as_size(free)} free in {folder}", "train.py ... dry_run=true says how much a run needs")
    return f"{as_size(free)} free in {folder}"


def videos() -> str:
    """H.264 there and back: results are videos, and the PushT data are."""
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    frames = [np.broadcast_to(ramp[:, None], (64, 64))[..., None].repeat(3, 2) // (k + 1) for k in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_mp4(path, frames)
        again = read_frames(path, range(4)).movedim(1, -1).float()
    error = (again - torch.from_numpy(np.stack(frames)).float()).abs().mean().item()
    if error > 8:  # of 255; measured: 1
        raise Missing(f"H.264 changes pixels by {error:.0f} of 255", "install PyAV anew: make setup", required=True)
    return f"H.264 written and read, PyAV {version('av')}"


def named_simulator(name: str) -> str:
    """An image from an environment of ours that needs no OpenGL."""
    return simulator(OmegaConf.load(REPOSITORY / "conf" / "env" / f"{name}.yaml").simulator)


def simulator(settings: Any) -> str:
    """An image from an environment, by the ``simulator`` of its file."""
    env = instantiate(settings, image_size=64)
    try:
        start, _ = env.sample_start_goal([0])
        env.reset([0], start)
        image = env.render(torch.arange(1))
    finally:
        env.close()
    if image.float().std() == 0:
        raise Missing("an image of one colour", "make setup", required=True)
    return f"{tuple(image.shape[-2:])} pixels drawn"


def opengl(back_end: str) -> str:
    """A process that draws with one back end of MuJoCo."""
    done = _draw({"MUJOCO_GL": back_end})
    if done.returncode:
        found, remedy = parts((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
        raise Missing(found.split("OpenGLError: ")[-1], f"only PointMaze draws with it, and one is enough; {remedy}")
    return done.stdout.strip()


def any_opengl() -> str:
    """PointMaze with whatever works."""
    done = _draw({})
    if done.returncode:
        raise Missing("no OpenGL, so no images of PointMaze", "apt-get install libegl1 libgl1 (or libosmesa6)")
    return f"drawn with {done.stdout.strip()}"


def _draw(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL" or not variables}
    command = [sys.executable, "-c", DRAW]
    return subprocess.run(
        command, cwd=REPOSITORY, env=inherited | variables, capture_output=True, text=True, timeout=120, check=False
    )


def parts(message: str) -> tuple[str, str]:
    """Split an error of ours into what was found and what to do, without details in brackets."""
    found, _, remedy = message.partition("; ")
    return found, remedy.split(" [")[0]
