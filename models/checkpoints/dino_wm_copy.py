"""Weights put into a copy of an original DINO-WM checkpoint, for programs that can read only such files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.foreign.dino_wm import WITHOUT_EFFECT, CheckpointError, open_pickled
from utils.reading.tensor_record import view_of
from utils.reading.torch_archive import TorchArchive

ALIGNMENT = 64  # bytes; where torch puts tensors in a file, so that they can be mapped into memory


def write_copy(original: Path, tensors: Mapping[str, Tensor], out: Path) -> None:
    """Write a copy of ``original`` in which ``tensors`` ("part.name" -> values) stand in the place of its own.

    The pickle in it, which names the classes of the earlier release, is copied byte for byte: nothing is pickled here,
    and the copy can do nothing that the original could not. Its epoch and its optimisers stay those of the original.

    Raises:
        CheckpointError: If a tensor is missing on either side or has another shape; nothing is written then.
    """
    with open_pickled(original) as (archive, index):
        wanted = {f"{part}.{name}": r for part, records in index.parts.items() for name, r in records.items()}
        kept = {name for name in wanted if WITHOUT_EFFECT.fullmatch(name) or name.startswith("initnet.")}
        problems = [f"{name} is missing" for name in wanted if name not in tensors and name not in kept]
        problems += [f"{name} has no place in it" for name in tensors if name not in wanted]
        problems += [
            f"{name} has shape {tuple(tensors[name].shape)} instead of {record.shape}"
            for name, record in wanted.items()
            if name in tensors and tuple(tensors[name].shape) != record.shape
        ]
        if problems:
            raise CheckpointError(f"the weights do not fit into {original}: {'; '.join(problems[:8])}")
        storages: dict[str, Tensor] = {}
        for name, record in wanted.items():
            if name in tensors:
                if record.key not in storages:
                    storages[record.key] = archive.storage(record)
                view_of(storages[record.key], record).copy_(tensors[name])
        _copy(archive, out, {f"data/{key}": storage for key, storage in storages.items()})


def _copy(archive: TorchArchive, out: Path, replaced: Mapping[str, Tensor]) -> None:
    """Write all records again, some of them with other contents, aligned as torch does it."""
    with out.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as copy:
        for name in archive.names():
            info = zipfile.ZipInfo(archive.root + name)  # of 1980, so that equal weights give equal files
            padding = -(file.tell() + 30 + len(info.filename.encode()) + 4) % ALIGNMENT  # 30: of a zip entry's header
            info.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
            new = replaced.get(name)
            copy.writestr(info, archive.record(name) if new is None else new.view(torch.uint8).numpy().data)
