"""A weights file of any program: the tensors in it by name, without knowing yet what they are of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.foreign.inert_pickle import CheckpointError, load_inert, open_checkpoint
from utils.reading.json_file import read_json
from utils.reading.opening import FileError
from utils.reading.safetensors_file import open_safetensors
from utils.reading.tensor_record import TensorRecord

SUFFIXES = (".safetensors", ".pt", ".pth", ".tar")
ENDINGS = (*SUFFIXES[:-1], ".pt.tar", ".pth.tar")  # in a folder: any other tar may be data
CONFIG = "config.json"
WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before names
MOST_BYTES = 1_000_000  # of a config
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


@dataclass(frozen=True)
class Contents:
    """What lies in a weights file.

    Attributes:
        path: The file.
        tensors: By their names there, "part.name" where the file has a state dict for each part; floats are float32.
            On the device "meta" if only names and shapes were asked for.
        config: The ``config.json`` beside it, inert data; {} if there is none.
        epoch: Training epochs behind it; 0 where the file does not say.
        others: Entries that hold no weights.
    """

    path: Path
    tensors: dict[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    epoch: int = 0
    others: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file's name without its suffixes: published models are known by it."""
        return re.sub(r"(\.(pth|pt|tar|safetensors))+$", "", self.path.name)


def weights_in(path: Path) -> Path | None:
    """Find the weights file that ``path`` is, or the one right in the folder ``path``; None if there is none.

    Raises:
        CheckpointError: If a folder holds several.
    """
    if path.is_file():
        return path if path.suffix in SUFFIXES else None
    found = sorted(each for each in path.glob("*") if each.name.endswith(ENDINGS) and each.is_file())
    if path.name == "checkpoints" and any(each.name.startswith("model_") for each in found):
        return None  # of a model directory
    if len(found) > 1:
        names = ", ".join(each.name for each in found[:8])
        raise CheckpointError(f"{path} holds {len(found)} weights files ({names}): name one, ckpt_path={found[-1]}")
    return found[0] if found else None


def read_contents(path: Path, with_numbers: bool = True) -> Contents:
    """Read a safetensors file, or what ``torch.save`` made of state dicts; nothing in it is run.

    Args:
        path: The file.
        with_numbers: Without, only names and shapes are read.

    Raises:
        CheckpointError: If the file is missing, damaged or unsafe, or the ``config.json`` beside it is.
    """
    try:
        config = read_json(path.parent / CONFIG, dict, most=MOST_BYTES) if (path.parent / CONFIG).is_file() else {}
        if path.suffix == ".safetensors":
            return Contents(path, _safetensors(path, with_numbers), config)
    except FileError as error:
        raise CheckpointError(str(error)) from None
    with open_checkpoint(path) as archive:
        content = load_inert(archive, path)
        if not isinstance(content, Mapping):
            return Contents(path, {}, config)
        read = archive.tensor if with_numbers else _without_numbers
        records = {key: list(_records(str(key), value)) for key, value in content.items()}
        tensors = _unwrapped(path, {name: _plain(read(each)) for found in records.values() for name, each in found})
    epoch = content.get("epoch")
    others = [str(key) for key, found in records.items() if not found and key != "epoch"]
    return Contents(path, tensors, config, epoch if type(epoch) is int and epoch >= 0 else 0, others)


def _unwrapped(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off names what DataParallel and torch.compile, around all or a part, put into them."""
    found: dict[str, str] = {}
    wrapper = re.compile(rf"(?<![^.])({'|'.join(map(re.escape, WRAPPERS))})")
    for name in tensors:
        plain = wrapper.sub("", name)
        if plain in found:
            raise CheckpointError(f"{path} holds both {found[plain]} and {name}: leave one of them in the file")
        found[plain] = name
    return {plain: tensors[name] for plain, name in found.items()}


def _safetensors(path: Path, with_numbers: bool) -> dict[str, Tensor]:
    with open_safetensors(path) as file:
        if with_numbers:
            return _unwrapped(path, {name: _plain(tensor) for name, tensor in file.read_all().items()})
        shapes = {
            name: torch.empty(shape, dtype=DTYPES.get(file.dtypes[name], torch.int64), device="meta")
            for name, shape in file.shapes.items()
        }
        return _unwrapped(path, shapes)


def _records(key: str, value: object) -> Iterator[tuple[str, TensorRecord]]:
    """Find the tensors of an entry: it is one, or a state dict; an optimiser's state is nested deeper."""
    if isinstance(value, TensorRecord):
        yield key, value
    elif isinstance(value, Mapping) and all(isinstance(each, TensorRecord) for each in value.values()):
        yield from ((f"{key}.{name}", record) for name, record in value.items())


def _without_numbers(record: TensorRecord) -> Tensor:
    return torch.empty(record.shape, dtype=record.dtype, device="meta")


def _plain(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
