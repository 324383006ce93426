"""Reading DINO-WM's checkpoints, which are pickles of whole objects, without running their code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from models.dino_wm_config import read_model_config, translate_config
from models.inert_pickle import UNREADABLE, CheckpointError, Inert, UnsafeCheckpointError, load_inert, unreadable

__all__ = [
    "CheckpointError",
    "PickledCheckpoint",
    "UnsafeCheckpointError",
    "read_model_config",
    "read_pickled_checkpoint",
    "translate_config",
]

PARTS = ("encoder", "predictor", "decoder", "action_encoder", "proprio_encoder", "initnet")
MAX_DEPTH = 64  # of the module tree; a deeper one is a cycle


@dataclass(frozen=True)
class PickledCheckpoint:
    """What a ``model_<epoch>.pth`` holds.

    Attributes:
        epoch: training epoch it was written after.
        parts: "predictor", "decoder", ... -> state dict on the CPU, independent of the file.
        classes: the same keys -> dotted name of the class that was pickled, e.g. "models.vit.ViTPredictor".
    """

    epoch: int
    parts: dict[str, dict[str, Tensor]]
    classes: dict[str, str]


def read_pickled_checkpoint(path: str | Path) -> PickledCheckpoint:
    """Read the tensors of the modules in ``path``.

    No class named in the file is imported. Optimisers, hooks and attributes that are no parameter or buffer are left
    out, and their data is never read.

    Raises:
        UnsafeCheckpointError: If the file names anything that such a checkpoint does not need. Nothing was run.
        CheckpointError: If the file is missing, damaged, or something else than a DINO-WM checkpoint.
    """
    path = Path(path)
    content = load_inert(path)
    if not isinstance(content, dict) or not isinstance(content.get("epoch"), int):
        keys = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"{path} is not a DINO-WM checkpoint: expected a dict with epoch, predictor, action_encoder and "
            f"proprio_encoder, found {keys}"
        )
    modules = {key: _unwrapped(content[key]) for key in PARTS if content.get(key) is not None}
    missing = [key for key in ("action_encoder", "proprio_encoder") if key not in modules]
    if missing:
        raise CheckpointError(f"{path} has no {' and no '.join(missing)}; it holds {', '.join(map(str, content))}")
    try:
        parts = {key: _state_dict(path, key, module) for key, module in modules.items()}
    except CheckpointError:
        raise
    except UNREADABLE as error:
        raise CheckpointError(unreadable(path, error)) from error
    return PickledCheckpoint(content["epoch"], parts, {key: _kind(module) for key, module in modules.items()})


def _state_dict(path: Path, key: str, module: object) -> dict[str, Tensor]:
    if "_modules" not in _stored(module):
        raise CheckpointError(f"{path}: {key} should be a pickled torch module, found {_kind(module)}")
    broken = [name for name, value in _tensors(module, ("_parameters",)) if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{path}: {key} holds NaN or infinity in {', '.join(broken)}; use an earlier epoch")
    # Copies: the tensors so far are windows into the file, which may change or go away.
    return {name: value.detach().clone() for name, value in _tensors(module, ("_parameters", "_buffers"))}


def _stored(holder: object) -> Mapping[str, Any]:
    return holder.stored if isinstance(holder, Inert) else {}


def _kind(holder: object) -> str:
    return holder.global_name if isinstance(holder, Inert) else type(holder).__name__


def _unwrapped(holder: object) -> object:
    """The module inside DistributedDataParallel or DataParallel."""
    modules = _stored(holder).get("_modules") or {}
    wrapped = set(modules) == {"module"} and _kind(holder).startswith("torch.nn.parallel.")
    return modules["module"] if wrapped else holder


def _tensors(holder: object, kinds: tuple[str, ...], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers below ``holder`` under their state-dict names."""
    if depth > MAX_DEPTH:
        raise ValueError("its modules contain each other")
    stored = _stored(holder)
    hidden = stored.get("_non_persistent_buffers_set", set())
    for kind in kinds:
        for name, value in stored.get(kind, {}).items():
            if isinstance(value, Tensor) and name not in hidden:
                yield prefix + name, value
    for name, child in stored.get("_modules", {}).items():
        if child is not None:
            yield from _tensors(child, kinds, f"{prefix}{name}.", depth + 1)
