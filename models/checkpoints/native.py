"""Model directories: ``hydra.yaml`` and ``checkpoints/model_<epoch>``, ours (safetensors) and DINO-WM's (pickles)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor, nn

from models.architecture import BEHIND_PROJECTOR, OPTIONAL, PARTS
from models.checkpoints.about import FORMAT, HEADER, checked, read_about
from models.checkpoints.config_file import read_model_config
from models.foreign import temporal_straightening
from models.foreign.contents import Contents
from models.foreign.dino_wm import WITHOUT_EFFECT, CheckpointError, is_finite, read_pickled_checkpoint
from models.foreign.facts import Facts
from models.foreign.layouts import LAYOUTS, Layout, recognise, translate
from models.world_model import WorldModel
from utils.files import sha256, write_text
from utils.moved_settings import current_tensor
from utils.nearby import hint
from utils.reading import safetensors_file as reading
from utils.reading.checksums import damaged
from utils.reading.opening import FileError
from utils.reading.safetensors_file import SafetensorsFile
from utils.retry import Retry
from utils.tensor_files import write_safetensors

log = logging.getLogger(__name__)

LATEST = "latest"
MOST_PROBLEMS = 8  # listed in one error


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
        """Those of ``models.architecture.OPTIONAL`` that it has: weights of ours, and what they are in ``config``.

        A file of DINO-WM may bring a proposal of another kind, which has no counterpart here. A projector may do
        without weights.
        """
        if self.is_dino_wm:
            return []
        brought = {"projector"} | {name.partition(".")[0] for name in self.tensors}
        return [part for part in OPTIONAL if part in brought and self.config.get(part) is not None]


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
        with open_safetensors(path) as (file, about):
            tensors = {current_tensor(name): tensor for name, tensor in file.read_all().items()}
        return Checkpoint(path, tensors, {}, about.pop("epoch"), about)
    pickled = read_pickled_checkpoint(path)
    tensors = {f"{part}.{name}": t for part, named in pickled.parts.items() for name, t in named.items()}
    if temporal_straightening.recognises(tensors):
        config = read_model_config(path.parent.parent / "hydra.yaml")
        read = temporal_straightening.translate(Contents(path, tensors, config))
        return Checkpoint(path, read.tensors, read.config, pickled.epoch, {"layout": read.layout}, foreign=True)
    return Checkpoint(path, tensors, {}, pickled.epoch, {"classes": pickled.classes})


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[tuple[SafetensorsFile, dict[str, Any]]]:
    """Open a weights file of ours and read its header, ``epoch`` and ``Checkpoint.about``; no tensor is read yet.

    Raises:
        CheckpointError: If the file is missing or damaged, or somebody else wrote it.
    """
    try:
        with reading.open_safetensors(path) as file:
            if HEADER not in file.metadata:
                raise CheckpointError(
                    f"{path} was not written by this project: its header has no {HEADER} entry of format {FORMAT}"
                )
            if set(file.metadata) != {HEADER}:
                raise damaged(path)  # the name of the checksum, say
            yield file, read_about(file.metadata[HEADER], path)
    except CheckpointError:
        raise
    except FileError as error:
        raise CheckpointError(str(error)) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); restore it from a copy") from None


def write_checkpoint(
    path: Path,
    model: WorldModel,
    epoch: int,
    about: Mapping[str, Any],
    with_encoder: bool,
    retry: Retry | None = None,
) -> None:
    """Write the weights atomically. The bytes depend on the arguments only, not on time or place.

    Args:
        path: ``.../checkpoints/model_<epoch>.safetensors``.
        model: Whose weights they are.
        epoch: Whole epochs that it was trained for.
        about: See ``Checkpoint``; plain numbers, strings, lists and dicts.
        with_encoder: False leaves out a frozen encoder that its own weights file brings back.
        retry: While a disk is full or away; None gives up at once.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if not with_encoder:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("encoder.")}
    write_tensors(path, state, epoch, about, retry)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], epoch: int, about: Mapping[str, Any], retry: Retry | None = None
) -> None:
    """Write our layout atomically: safetensors whose header has ``epoch`` and ``about`` as JSON."""
    header = json.dumps({"format": FORMAT, "epoch": epoch, **about}, sort_keys=True)
    write_safetensors(path, tensors, {HEADER: header}, retry)


def load_weights(model: WorldModel, checkpoint: Checkpoint) -> list[str]:
    """Fill ``model`` from a checkpoint; returns the parts that it does not bring (they keep the weights they have).

    A model may have a projector where the checkpoint has none. Then the parts behind it are not brought either, and
    take over what tensors are of the same shape.

    Raises:
        CheckpointError: Listing every missing, unknown or misshapen tensor of the parts that it does bring.
    """
    brought = {name.split(".", 1)[0] for name in checkpoint.tensors}.difference(OPTIONAL)
    brought.update(checkpoint.optional_parts)
    new = BEHIND_PROJECTOR if model.projector is not None and "projector" not in brought else ()
    absent, problems = [], []
    for part in (*PARTS, *OPTIONAL):
        module = getattr(model, part)
        if module is None:
            continue
        found = {n.removeprefix(f"{part}."): t for n, t in checkpoint.tensors.items() if n.startswith(f"{part}.")}
        wanted = module.state_dict()
        if part not in brought and wanted:
            absent.append(part)
            continue
        if part in new:
            absent.append(part)
            fitting = {n: t for n, t in found.items() if n in wanted and wanted[n].shape == t.shape and is_finite(t)}
            log.info("%s: %d of its %d tensors are the checkpoint's", part, len(fitting), len(wanted))
            module.load_state_dict(fitting, strict=False)
            continue
        found = {name: tensor for name, tensor in found.items() if not WITHOUT_EFFECT.fullmatch(f"{part}.{name}")}
        problems += _differences(part, wanted, found)
        problems += _fill(part, module, {name: found[name] for name in wanted if name in found})
    if problems:
        raise CheckpointError(
            f"{checkpoint.path} does not fit the model that its hydra.yaml describes: "
            + _width_problem(model, checkpoint)
            + "; ".join(problems[:MOST_PROBLEMS])
            + (f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else "")
        )
    return absent


def _width_problem(model: WorldModel, checkpoint: Checkpoint) -> str:
    """Name a cause that many misshapen tensors may have in common: tokens of another width."""
    positions = checkpoint.tensors.get("predictor.pos_embedding")
    layout = model.layout
    if positions is None or positions.shape[-1] == layout.token_dim:
        return ""
    return (
        f"its predictor takes tokens {positions.shape[-1]} wide; here the encoder ({layout.visual_dim}), proprio "
        f"({layout.proprio_repeat} x {layout.proprio_dim}) and action embeddings ({layout.action_repeat} x "
        f"{layout.action_dim}) make {layout.token_dim}. Is it another encoder (encoder.name, or encoder.embed_dim, "
        "depth, num_heads for one that is not official), or another num_proprio_repeat or num_action_repeat? "
    )


def _differences(part: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    problems = [f"{part}.{name} is missing" for name in wanted if name not in found]
    problems += [f"{part}.{name} is unknown" for name in found if name not in wanted]
    problems += [f"{part}.{n} is not finite" for n in wanted if n in found and not is_finite(found[n])]
    return problems


def _fill(part: str, module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Load what is there, and say what does not fit; a module may adapt a state, as the ViT does to longer ones."""
    # a module without weights of its own takes the tensors themselves
    fitting = (
        {n: t.float() for n, t in state.items()} if (bare := any(p.is_meta for p in module.parameters())) else state
    )
    try:
        module.load_state_dict(fitting, strict=False, assign=bare)
    except RuntimeError as error:
        return [_misfit(part, line) for line in str(error).splitlines()[1:]]
    return []


def _misfit(part: str, line: str) -> str:
    """Shorten torch's sentence about a tensor of another shape."""
    found = re.search(r"size mismatch for (\S+): .*\((\[.*?\])\) from .*\((\[.*?\])\)", line)
    return f"{part}.{found[1]} has shape {found[2]} instead of {found[3]}" if found else f"{part}: {line.strip()}"


def write_model_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``hydra.yaml``, plain data without interpolations."""
    write_text(folder / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))


def parentage(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Say what a finetuned checkpoint was started from."""
    if checkpoint is None:
        return {"parent": None, "parent_sha256": None}
    return {"parent": str(checkpoint.path.resolve()), "parent_sha256": sha256(checkpoint.path)}
