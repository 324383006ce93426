"""Reading DINO-WM's checkpoints, which are pickles of whole objects, without running their code."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.foreign.contents import WRAPPERS
from models.foreign.inert_pickle import CheckpointError, UnsafeCheckpointError, load_inert, open_checkpoint
from utils.reading.pickle_values import Inert
from utils.reading.tensor_record import TensorRecord
from utils.reading.torch_archive import TorchArchive

__all__ = [
    "CheckpointError",
    "NotDinoWM",
    "PickledCheckpoint",
    "PickledIndex",
    "UnsafeCheckpointError",
    "read_pickled_checkpoint",
    "read_pickled_index",
    "read_state_dict_index",
]

PARTS = ("encoder", "predictor", "decoder", "action_encoder", "proprio_encoder", "initnet")
WITHOUT_EFFECT = re.compile(r"predictor\.transformer\.layers\.\d+\.0\.bias|decoder\.quantize_\w+\.\w+")
"""Buffers that some checkpoints bring and no computation needs: the mask, and the code book that is switched off."""
PLAIN = "dict"
"""The class of a part that is a state dict instead of a pickled module."""
MAX_ENTRIES = 20_000  # modules, parameters and buffers; more are a tree that shares its branches
MAX_NAME = 512  # characters of a tensor's whole name
MAX_DEPTH = 64  # of the module tree; a deeper one is a cycle


class NotDinoWM(CheckpointError):  # noqa: N818  (a kind of CheckpointError)
    """A sound file holds something else than a DINO-WM checkpoint."""


@dataclass(frozen=True)
class PickledCheckpoint:
    """The content of a ``model_<epoch>.pth``.

    Attributes:
        epoch: Training epoch it was written after.
        parts: "predictor", "decoder", ... -> state dict on the CPU, independent of the file.
        classes: The same keys -> dotted name of the class that was pickled, e.g. "models.vit.ViTPredictor"; "dict" of
            a plain state dict.
    """

    epoch: int
    parts: dict[str, dict[str, Tensor]]
    classes: dict[str, str]


@dataclass(frozen=True)
class PickledIndex:
    """The content of a ``model_<epoch>.pth`` without the numbers.

    Attributes:
        epoch: As in ``PickledCheckpoint``.
        classes: As in ``PickledCheckpoint``.
        parts: Part -> name in its state dict -> where in the file that tensor lies.
        buffers: Part -> names in it that are no parameters.
        others: Entries of the file that are ignored, optimisers for instance.
    """

    epoch: int
    parts: dict[str, dict[str, TensorRecord]]
    classes: dict[str, str]
    buffers: dict[str, set[str]]
    others: list[str]


def read_pickled_checkpoint(path: str | Path) -> PickledCheckpoint:
    """Read the tensors of the modules in ``path``.

    No class named in the file is imported. Optimisers, hooks and attributes that are no parameter or buffer are left
    out, and their data is never read.

    Raises:
        UnsafeCheckpointError: If the file names anything that such a checkpoint does not need. Nothing was run.
        CheckpointError: If the file is missing, damaged, or something else than a DINO-WM checkpoint.
    """
    path = Path(path)
    with open_pickled(path) as (archive, index):
        parts = {
            part: {name: archive.tensor(record) for name, record in records.items()}
            for part, records in index.parts.items()
        }
    for part, tensors in parts.items():
        # a mask in the buffers may well hold infinities
        names = [name for name in tensors if name not in index.buffers[part]]
        broken = [name for name in names if not is_finite(tensors[name])]
        if broken:
            raise CheckpointError(f"{path}: {part} holds NaN or infinity in {', '.join(broken)}; use an earlier epoch")
    return PickledCheckpoint(index.epoch, parts, index.classes)


def read_pickled_index(path: str | Path) -> PickledIndex:
    """Read names, shapes and places of the tensors in ``path``; raises as ``read_pickled_checkpoint`` does."""
    with open_pickled(Path(path)) as (_, index):
        return index


@contextlib.contextmanager
def open_pickled(path: Path) -> Iterator[tuple[TorchArchive, PickledIndex]]:
    """Open the archive of a checkpoint and find what is where in it; raises as ``read_pickled_checkpoint`` does."""
    with open_checkpoint(path) as archive:
        yield archive, _index(archive, path)


def read_state_dict_index(path: str | Path) -> dict[str, TensorRecord] | None:
    """Find the tensors of a plain state dict; None if the file holds something else. Raises as above."""
    path = Path(path)
    with open_checkpoint(path) as archive:
        content = load_inert(archive, path)
    is_flat = isinstance(content, dict) and content and all(isinstance(v, TensorRecord) for v in content.values())
    return {str(name): record for name, record in content.items()} if is_flat else None


def _index(archive: TorchArchive, path: Path) -> PickledIndex:
    content = load_inert(archive, path)
    epoch = content.get("epoch") if isinstance(content, dict) else None
    if epoch is not None and not (type(epoch) is int and epoch >= 0):
        raise CheckpointError(f"{path}: epoch must be a whole number from 0, found a {_kind(epoch)}")
    if epoch is None:
        keys = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else _kind(content)
        raise NotDinoWM(
            f"{path} is not a DINO-WM checkpoint: expected a dict with epoch, predictor, action_encoder and "
            f"proprio_encoder, found {keys}"
        )
    modules = {key: _unwrapped(content[key]) for key in PARTS if content.get(key) is not None}
    missing = [key for key in ("action_encoder", "proprio_encoder") if key not in modules]
    if missing:
        raise CheckpointError(f"{path} has no {' and no '.join(missing)}; it holds {', '.join(map(str, content))}")
    seen = itertools.count(1)
    found = {key: _records(path, key, module, seen) for key, module in modules.items()}
    return PickledIndex(
        epoch,
        parts={key: {name: record for name, record, _ in each} for key, each in found.items()},
        classes={key: _kind(module) for key, module in modules.items()},
        buffers={key: {name for name, _, is_buffer in each if is_buffer} for key, each in found.items()},
        others=[str(key) for key in content if key not in found and key != "epoch"],
    )


def _records(path: Path, key: str, module: object, seen: Iterator[int]) -> list[tuple[str, TensorRecord, bool]]:
    if isinstance(module, dict) and module and all(isinstance(value, TensorRecord) for value in module.values()):
        names = [_counted(str(name), seen) for name in module]
        while prefix := next((w for w in WRAPPERS if all(name.startswith(w) for name in names)), None):
            names = [name.removeprefix(prefix) for name in names]
        return [(name, record, False) for name, record in zip(names, module.values(), strict=True)]
    if "_modules" not in _stored(module):
        raise CheckpointError(
            f"{path}: {key} should be a pickled torch module or a state dict, found {_kind(module)}"
            + (f" with {', '.join(map(str, list(module)[:8]))}" if isinstance(module, dict) else "")
        )
    return list(_tensors(module, seen))


def is_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite; by its extremes, which takes no memory and little time."""
    if not tensor.is_floating_point() or not tensor.numel():
        return not tensor.is_complex() or bool(tensor.isfinite().all())
    return bool(torch.stack(tensor.aminmax()).isfinite().all())


def _stored(holder: object) -> Mapping[str, Any]:
    return holder.stored if isinstance(holder, Inert) else {}


def _kind(holder: object) -> str:
    if isinstance(holder, TensorRecord):
        return "Tensor"
    if isinstance(holder, dict):
        return PLAIN
    return holder.global_name if isinstance(holder, Inert) else type(holder).__name__


def _unwrapped(holder: object) -> object:
    """Return the module inside DistributedDataParallel, DataParallel and ``torch.compile``."""
    for _ in range(MAX_DEPTH):
        modules = _stored(holder).get("_modules") or {}
        if set(modules) == {"module"} and _kind(holder).startswith("torch.nn.parallel."):
            holder = modules["module"]
        elif isinstance(holder, Inert) and holder.global_name.startswith("torch._dynamo."):
            holder = modules.get("_orig_mod") or (holder.arguments[0] if holder.arguments else None)
        else:
            break
    return holder


def _tensors(
    holder: object, seen: Iterator[int], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, TensorRecord, bool]]:
    """Find parameters and persistent buffers below ``holder`` under their state-dict names, and whether it is a buffer.

    Args:
        seen: Counts the entries of the whole file: one module under a thousand names is a thousand.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"its modules contain each other, {MAX_DEPTH} levels deep")
    stored = _stored(holder)
    hidden = stored.get("_non_persistent_buffers_set", set())
    for kind in ("_parameters", "_buffers"):
        for name, value in _entries(stored, kind):
            full = _counted(f"{prefix}{name}", seen)
            if kind == "_parameters" and isinstance(value, Inert):
                raise ValueError(f"the parameter {full} is a {value.global_name}, no plain tensor")
            if isinstance(value, TensorRecord) and name not in hidden:
                yield full, value, kind == "_buffers"
    for name, child in _entries(stored, "_modules"):
        full = _counted(f"{prefix}{name}", seen)
        if child is not None:
            yield from _tensors(_unwrapped(child), seen, f"{full}.", depth + 1)


def _entries(stored: Mapping[str, Any], kind: str) -> Iterable[tuple[Any, Any]]:
    found = stored.get(kind) or {}
    if not isinstance(found, dict):
        raise ValueError(f"the {kind} of a module are a {_kind(found)}")
    return found.items()


def _counted(name: str, seen: Iterator[int]) -> str:
    if next(seen) > MAX_ENTRIES:
        raise ValueError(f"its modules have more than {MAX_ENTRIES} parts and tensors: they share their branches")
    if len(name) > MAX_NAME:
        raise ValueError(f"a tensor's name has more than {MAX_NAME} characters")
    return name
