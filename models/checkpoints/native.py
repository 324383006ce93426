"""Model directories: ``hydra.yaml`` and ``checkpoints/model_<epoch>``, ours (safetensors) and DINO-WM's (pickles)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from torch import Tensor

from models.architecture import OPTIONAL
from models.checkpoints.config_file import read_model_config
from models.checkpoints.own_file import checked, open_own_file
from models.foreign import temporal_straightening
from models.foreign.contents import Contents
from models.foreign.dino_wm import CheckpointError, read_pickled_checkpoint
from models.foreign.facts import Facts
from models.foreign.layouts import LAYOUTS, Layout, recognise, translate
from utils.files import sha256, write_text
from utils.moved_settings import current_tensor
from utils.nearby import hint

LATEST = "latest"

T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A trained world model on disk.

    Attributes:
        path: The weights file.
        tensors: "part.name" -> tensor, on the CPU.
        config: The whole ``hydra.yaml``, inert data.
        epoch: Training epochs behind it.
        about: What our own files say besides: ``normalizer`` (units), ``validation`` (trajectory numbers), ``step``,
            ``parent`` and ``parent_sha256``, ``encoder_sha256``; of DINO-WM's files ``classes``, what was pickled; of
            other programs' ``layout``, its name, and ``statistics``, the units without those of states.
        foreign: Whether another program wrote the file, which lies in no model directory; all else is by our names.
    """

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    epoch: int
    about: dict[str, Any] = field(default_factory=dict)
    foreign: bool = False

    @property
    def is_dino_wm(self) -> bool:
        """Whether it is a file of DINO-WM, with the names and the config of that."""
        return "classes" in self.about

    @property
    def is_ours(self) -> bool:
        """Whether it is a file of ours, which may have been made of another program's."""
        return not (self.is_dino_wm or self.foreign)

    @property
    def optional_parts(self) -> list[str]:
        """The parts of ``models.architecture.OPTIONAL`` that it has: weights of ours, and what they are in ``config``.

        A file of DINO-WM may bring a proposal of another kind, which has no counterpart here. A projector may do
        without weights.
        """
        if self.is_dino_wm:
            return []
        brought = {"projector"} | {name.partition(".")[0] for name in self.tensors}
        return [part for part in OPTIONAL if part in brought and self.config.get(part) is not None]


def by_part(tensors: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Group what is named "part.name" by its network; a name without a network is one of its own."""
    parts: dict[str, dict[str, T]] = {}
    for full, value in tensors.items():
        part, _, name = full.partition(".")
        parts.setdefault(part, {})[name or part] = value
    return parts


def weights_file(folder: Path, epoch: int | str = LATEST) -> Path | None:
    """Find the weights of a model directory at an epoch (or "latest"); ours wins over a pickle; None if there are none.

    Raises:
        CheckpointError: If something else has that name.
    """
    for suffix in ("safetensors", "pth"):
        path = folder / "checkpoints" / f"model_{epoch}.{suffix}"
        if path.is_file():
            return path
        if os.path.lexists(path):
            raise CheckpointError(f"{path} is not a file: a folder, or a link that leads nowhere")
    return None


def trained_weights(folder: Path) -> str | None:
    """Name the weights that a model directory holds, the latest ones if there are several."""
    names = sorted(p.name for p in (folder / "checkpoints").glob("model_*") if p.suffix in (".safetensors", ".pth"))
    return names[-1] if names else None  # "latest" comes after every number


def locate_weights(path: Path, epoch: int | str = LATEST) -> Path:
    """Find the weights file that ``path`` is, or that the model directory ``path`` holds.

    Raises:
        CheckpointError: If there is none, with what there is.
    """
    if path.is_file():
        return path
    found = weights_file(path, epoch)
    if found is None:
        others = sorted(p.name for p in (path / "checkpoints").glob("model_*"))
        asked = "" if epoch == LATEST else f", model_epoch={epoch}"
        raise CheckpointError(
            f"ckpt_path={path}{asked}: there is no checkpoints/model_{epoch}.safetensors or .pth; found "
            f"{', '.join(others) or f'no checkpoint at all: {hint(path, trained_weights)}'}"
        )
    return found


def read_checkpoint(folder: Path, epoch: int | str = LATEST, facts: Facts | None = None) -> Checkpoint:
    """Read a model directory, or what another program wrote: a file, or the folder that holds it.

    Args:
        folder: The path of one of these.
        epoch: Of a model directory.
        facts: What files of other programs leave open.

    Raises:
        CheckpointError: If the directory, the epoch or ``hydra.yaml`` is missing, or a file is broken or unsafe.
    """
    if found := recognise(folder):
        return read_foreign(*found, facts)
    if folder.is_file():
        raise CheckpointError(
            f"ckpt_path={folder} must be a model directory, which has hydra.yaml in it, or a file of one of the "
            f"layouts {', '.join(each.name for each in LAYOUTS)}: {hint(folder, trained_weights)}"
        )
    path = locate_weights(folder, epoch)
    if facts is not None and (given := [key for key, value in vars(facts).items() if value is not None]):
        raise CheckpointError(f"foreign.{given[0]} has no effect: {path} is of no other program's layout; leave it out")
    config = read_model_config(folder / "hydra.yaml")
    read = read_weights_file(path)
    return read if read.foreign else replace(read, config=config)


def read_foreign(layout: Layout, contents: Contents, facts: Facts | None = None) -> Checkpoint:
    """Read what ``recognise`` found, as if it were ours.

    Raises:
        CheckpointError: If something has no counterpart here, or is neither said in the file nor known.
    """
    read = translate(layout, contents, facts or Facts())
    about = checked(read.about, contents.path)
    about |= {"layout": read.layout} | ({"statistics": read.statistics} if read.statistics else {})
    epoch = about.pop("epoch", contents.epoch)
    return Checkpoint(contents.path, read.tensors, read.config, epoch, about, foreign=True)


def read_any(path: Path, facts: Facts | None = None) -> Checkpoint:
    """Read a weights file of any layout; the ``config`` of ours and DINO-WM's is empty.

    Raises:
        CheckpointError: If the file is missing, broken or unsafe, or of no known layout.
    """
    found = recognise(path)
    return read_foreign(*found, facts) if found else read_weights_file(path)


def with_config(checkpoint: Checkpoint) -> Checkpoint:
    """Add the ``hydra.yaml`` of the model directory that a weights file lies in.

    Raises:
        ValueError: If there is none, or a broken one.
    """
    if checkpoint.foreign:
        return checkpoint
    return replace(checkpoint, config=read_model_config(checkpoint.path.parent.parent / "hydra.yaml"))


def holds_checkpoint(path: Path) -> bool:
    """Whether ``path`` is something that ``read_checkpoint`` reads."""
    return weights_file(path) is not None or recognise(path) is not None


def read_weights_file(path: Path) -> Checkpoint:
    """Read one file of ours, with an empty ``config``, or a pickle of DINO-WM's or a program that descends from it.

    Raises:
        CheckpointError: If the file is missing, broken or unsafe.
    """
    if path.suffix == ".safetensors":
        with open_own_file(path) as (file, about):
            tensors = {current_tensor(name): tensor for name, tensor in file.read_all().items()}
        return Checkpoint(path, tensors, {}, about.pop("epoch"), about)
    pickled = read_pickled_checkpoint(path)
    tensors = {f"{part}.{name}": t for part, named in pickled.parts.items() for name, t in named.items()}
    if temporal_straightening.recognises(tensors):
        config = read_model_config(path.parent.parent / "hydra.yaml")
        read = temporal_straightening.translate(Contents(path, tensors, config))
        return Checkpoint(path, read.tensors, read.config, pickled.epoch, {"layout": read.layout}, foreign=True)
    return Checkpoint(path, tensors, {}, pickled.epoch, {"classes": pickled.classes})


def write_model_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``hydra.yaml``, plain data without interpolations."""
    write_text(folder / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))


def parentage(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Say what a finetuned checkpoint was started from."""
    if checkpoint is None:
        return {"parent": None, "parent_sha256": None}
    return {"parent": str(checkpoint.path.resolve()), "parent_sha256": sha256(checkpoint.path)}
