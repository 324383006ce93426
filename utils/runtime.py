"""Settings of the process itself. Import this before torch: the OpenMP runtime reads its environment only once."""

from __future__ import annotations

import os

from utils import missing  # noqa: F401  (first: what comes next may not be installed)
from utils.slurm import adopt_srun

# Threads that spin while they wait lose badly on a machine where anything else runs; the user's own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")
if adopt_srun() > 0:
    os.environ.setdefault("TQDM_DISABLE", "1")  # of several processes one shows progress; read when tqdm is loaded

import contextlib
import platform
from importlib.metadata import version

import torch

from utils import distributed
from utils.machine import cpu_info
from utils.revision import revision

PRECISIONS = ("auto", "float32", "bf16")
DEVICES = ("cpu", "cuda", "mps", "xpu")  # those that hold numbers; "meta", say, is one for torch
PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "gymnasium", "safetensors")


def pick_device(device: str) -> torch.device:
    """Choose a device; ``auto`` means a GPU if there is one: the first, or for each of several processes its own.

    Raises:
        ValueError: If a device is asked for that torch cannot use here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and distributed.size() > 1:
        device = _own_gpu()
    try:
        chosen = torch.device(device)
        if chosen.type not in DEVICES or (chosen.type == "cpu" and chosen.index):
            raise RuntimeError(f"devices are {', '.join(DEVICES)}, of which cpu has no numbers")
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device} cannot be used here ({reason}); use device=auto or device=cpu") from None
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)  # what asks for "the" GPU from here on means this one
    return chosen


def _own_gpu() -> str:
    """Name the GPU of this process; a launcher may also have made it the only one that the process can see."""
    visible, number = torch.cuda.device_count(), distributed.local_rank()
    if number >= visible > 1:
        raise ValueError(
            f"process {number + 1} of this machine finds only {visible} GPUs: start at most that many "
            f"(--nproc_per_node={visible}), or set device=cpu"
        )
    return f"cuda:{min(number, max(visible, 1) - 1)}"


def set_threads(num_threads: int | None) -> None:
    """Set the threads of one torch operation; None leaves torch's own choice.

    Raises:
        ValueError: If the number is below 1.
    """
    if num_threads is None:
        return
    if num_threads < 1:
        raise ValueError(f"num_threads must be at least 1 or null, got {num_threads}")
    torch.set_num_threads(num_threads)


def autocast(
    precision: str, device: torch.device, keeps_casts: bool = True
) -> contextlib.AbstractContextManager[object]:
    """Choose the arithmetic of the networks for a block.

    Args:
        precision: Float32, bf16, or auto: bf16 on a GPU and float32 on a CPU.
        device: Where they run.
        keeps_casts: Keep casts of what takes gradients until the end: saves a training casts of its weights, but would
            hold every action that a planner ever differentiated.

    Raises:
        ValueError: If there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    use_bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    if not use_bf16:
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=keeps_casts)


def describe_environment() -> dict[str, str]:
    """List what a result depends on besides its configuration: versions, hardware, the revision of this code."""
    processors = (line.split(":", 1)[1].strip() for line in cpu_info().splitlines() if line.startswith("model name"))
    return {name: version(name) for name in PACKAGES} | {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": next(processors, platform.processor() or "unknown"),
        "cpu_threads": str(torch.get_num_threads()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "revision": revision(),
    }
