"""``torch.compile`` of a predictor, in place."""

from __future__ import annotations

import torch

from models.parts import Predictor

AUTO = "auto"
VARIANTS = 64
"""A window that grows, then slides, with gradients and without, for all episodes and fewer: torch would stop at 8."""


def compiles(choice: bool | str, device: torch.device, key: str) -> bool:
    """Whether to compile: "auto" does so on a GPU, where it wins; on a CPU the products take nearly all the time.

    Raises:
        ValueError: If the setting ``key`` is neither a truth value nor "auto".
    """
    if choice not in (True, False, AUTO):
        raise ValueError(f"{key} must be true, false or auto, got {choice!r}")
    return device.type == "cuda" if choice == AUTO else bool(choice)


def compile_in_place(predictor: Predictor) -> None:
    """Compile the parts that hold the arithmetic; names of tensors, and copies of the module, stay uncompiled."""
    from torch._dynamo import config as dynamo  # takes seconds

    dynamo.recompile_limit = max(dynamo.recompile_limit, VARIANTS)
    for part in predictor.compiled_parts():
        part.compile()
