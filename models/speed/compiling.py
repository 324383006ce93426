"""``torch.compile`` of networks, in place."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Final

import torch
from torch import nn

from models.interfaces import Predictor
from models.networks.dinov2_vit import Block
from models.networks.vit import Transformer

AUTO: Final = "auto"
FIRST_WITH_BF16 = (8, 0)  # compute capability
VARIANTS = 64
"""A window that grows, then slides, with gradients and without, for all episodes and fewer: torch would stop at 8."""


def compiles(choice: bool | str, device: torch.device) -> bool:
    """Whether to compile: "auto" does so on a GPU, where it wins; on a CPU the products take nearly all the time."""
    return device.type == "cuda" and what_triton_lacks() is None if choice == AUTO else bool(choice)


def runs_kernels(device: torch.device) -> bool:
    """Whether our GPU kernels can be built for ``device``: an NVIDIA GPU from Ampere on."""
    if device.type != "cuda" or torch.version.hip is not None or what_triton_lacks() is not None:
        return False
    return torch.cuda.get_device_capability(device) >= FIRST_WITH_BF16


@functools.cache  # every plan asks, and it looks at files
def what_triton_lacks() -> str | None:
    """Name what Triton lacks to build the code that launches a kernel, and how to get it; None if all is there."""
    if importlib.util.find_spec("triton") is None:
        return "Triton (it comes with torch's CUDA builds)"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler (on Debian and Ubuntu: apt-get install gcc)"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "Python's headers (on Debian and Ubuntu: apt-get install python3-dev)"
    return None


def compile_in_place(network: nn.Module) -> None:
    """Compile the parts that hold the arithmetic; names of tensors, and copies of the module, stay uncompiled."""
    from torch._dynamo import config as dynamo  # takes seconds

    dynamo.recompile_limit = max(dynamo.recompile_limit, VARIANTS)
    for part in compiled_parts(network):
        part.compile()


def compiled_parts(network: nn.Module) -> list[nn.Module]:
    """Find what holds the arithmetic: a transformer, the blocks of DINOv2 (all alike), or all of another predictor."""
    found: list[nn.Module] = [part for part in network.modules() if isinstance(part, Transformer | Block)]
    return found or ([network] if isinstance(network, Predictor) else [])
