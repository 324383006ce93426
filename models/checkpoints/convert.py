"""Converting checkpoints from one file format to another, without ever overwriting a file."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from models.architecture import OPTIONAL
from models.checkpoints.compatible import ORIGINAL, check_computes
from models.checkpoints.config_file import read_model_config
from models.checkpoints.dino_wm_copy import write_copy
from models.checkpoints.hub_export import hub_files, write_hub_weights
from models.checkpoints.native import LATEST, Checkpoint, by_part, read_any, with_config
from models.checkpoints.own_file import write_tensors
from models.checkpoints.stable_worldmodel_export import stable_worldmodel_files
from models.checkpoints.stored_architecture import stored_architecture
from models.foreign.dino_wm import WITHOUT_EFFECT, CheckpointError
from models.foreign.facts import Facts
from utils.files import sha256, temporary_path

log = logging.getLogger(__name__)

SAFETENSORS, STATE_DICT, DINO_WM = WEIGHTS = ("safetensors", "state-dict", "dino-wm")
HUB, STABLE_WORLDMODEL = FOLDERS = ("hub", "stable-worldmodel")
LAYOUTS = WEIGHTS + FOLDERS
MAX_GENERATIONS = 32  # finetuned from finetuned from ...


def convert(
    path: Path,
    out: Path,
    to: str | None = None,
    like: Path | None = None,
    facts: Facts | None = None,
    license_name: str = "unknown",
    transformers: int = 5,
) -> str:
    """Write the weights file ``path`` anew; returns what was done, for people.

    Args:
        path: a file of any layout that is read here.
        out: a .safetensors or .pth file, or else a model directory, which gets ``hydra.yaml`` too.
        to: ``safetensors`` is our layout; ``state-dict`` plain tensors, ``{"epoch": n, "predictor": {name: tensor}}``,
            that ``torch.load(weights_only=True)`` reads; ``dino-wm`` the original with these weights in it; ``hub``
            and ``stable-worldmodel`` are folders. None: ``state-dict`` for a .pth file, else ``safetensors``.
        like: With ``dino-wm``, the original; None takes the parent that the checkpoint names.
        facts: What the files of other programs leave open.
        license_name: With ``hub``, as the card says it.
        transformers: With ``stable-worldmodel``, the generation whose names the encoder gets, 4 or 5.

    Raises:
        CheckpointError: If something is missing or does not fit, or ``out`` holds something else already. A file that
            is there already with the same content is left alone, so that a second run changes nothing.
    """
    to = to or (STATE_DICT if out.suffix == ".pth" else SAFETENSORS)
    if like is not None and to != DINO_WM:
        raise CheckpointError(f"--like {like} has no effect without --to {DINO_WM}")
    if to in FOLDERS:
        return _write_folder(with_config(read_any(path, facts)), out, to, license_name, transformers)
    suffix = ".safetensors" if to == SAFETENSORS else ".pth"
    is_folder = not out.suffix
    if not out.name:
        raise CheckpointError(f"OUT={out} names no file and no new folder")
    if (is_folder and to == STATE_DICT) or (not is_folder and out.suffix != suffix):
        folder = "" if to == STATE_DICT else ", or a folder, whose name has no dot"
        raise CheckpointError(f"OUT={out}: --to {to} needs a file whose name ends in {suffix}{folder}")
    checkpoint = read_any(path, facts)
    stem = path.stem if path.parent.name == "checkpoints" else f"model_{LATEST}"
    target = out / "checkpoints" / f"{stem}{suffix}" if is_folder else out
    original = _original(checkpoint, like) if to == DINO_WM else path
    if to == DINO_WM and (checkpoint.foreign or (path.parent.parent / "hydra.yaml").is_file()):
        check_computes(stored_architecture(with_config(checkpoint)), ORIGINAL, "DINO-WM")
    done: list[str] = []
    with contextlib.ExitStack() as stack:  # both files are complete before either of them takes its name
        if is_folder:
            _write_config(checkpoint, original, stack.enter_context(_fresh(out / "hydra.yaml", done)), to)
        temporary = stack.enter_context(_fresh(target, done))
        if to == SAFETENSORS:
            about = checkpoint.about if checkpoint.is_ours else _adopted(checkpoint)
            tensors = {n: t for n, t in checkpoint.tensors.items() if not WITHOUT_EFFECT.fullmatch(n)}
            write_tensors(temporary, tensors, checkpoint.epoch, about)
        elif to == STATE_DICT:
            _write_state_dict(temporary, checkpoint)
        else:
            write_copy(original, _known_there(checkpoint), temporary)
    return "\n".join(done)


def _write_folder(checkpoint: Checkpoint, out: Path, to: str, license_name: str, transformers: int) -> str:
    """Write a folder that a model hub or stable-worldmodel takes; see ``convert``."""
    if out.suffix:
        raise CheckpointError(f"OUT={out}: --to {to} needs a folder, whose name has no dot")
    done: list[str] = []
    with contextlib.ExitStack() as stack:
        if to == HUB:
            texts: dict[str, str] = hub_files(checkpoint, license_name)
            write_hub_weights(stack.enter_context(_fresh(out / "model.safetensors", done)), checkpoint)
        else:
            state, texts = stable_worldmodel_files(checkpoint, transformers)
            with stack.enter_context(_fresh(out / "weights.pt", done)).open("wb") as file:
                torch.save(OrderedDict(state), file)
        for name, text in texts.items():
            stack.enter_context(_fresh(out / name, done)).write_text(text, encoding="utf-8")
    return "\n".join(done)


def _known_there(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint without those of networks that the earlier release does not have."""
    if "projector" in checkpoint.optional_parts or any(name.startswith("projector.") for name in checkpoint.tensors):
        raise CheckpointError(
            f"{checkpoint.path} has a projector, without which its predictor is of no use, and the earlier release "
            f"knows none: it cannot be converted --to {DINO_WM}"
        )
    kept = {n: t for n, t in checkpoint.tensors.items() if n.partition(".")[0] not in OPTIONAL}
    if left_out := sorted({name.partition(".")[0] for name in checkpoint.tensors.keys() - kept.keys()}):
        log.warning("%s: %s is left out, an original has no place for it", checkpoint.path, ", ".join(left_out))
    return kept


def _adopted(checkpoint: Checkpoint) -> dict[str, Any]:
    """Name the file of another program that ours was made from, and keep what is known of it."""
    known = {key: value for key, value in checkpoint.about.items() if key != "classes"}
    return {**known, "parent": str(checkpoint.path.resolve()), "parent_sha256": sha256(checkpoint.path)}


def _write_state_dict(path: Path, checkpoint: Checkpoint) -> None:
    with path.open("wb") as file:  # by object: the name of the temporary file would become part of the contents
        torch.save({"epoch": checkpoint.epoch, **by_part(checkpoint.tensors)}, file)


def _write_config(checkpoint: Checkpoint, original: Path, target: Path, to: str) -> None:
    """The ``hydra.yaml`` of a converted model directory."""
    if checkpoint.foreign and to == SAFETENSORS:
        target.write_text(OmegaConf.to_yaml(OmegaConf.create(checkpoint.config)), encoding="utf-8")
        return
    source = (original if to == DINO_WM else checkpoint.path).parent.parent / "hydra.yaml"
    if not source.is_file():
        raise CheckpointError(f"{source} does not exist; give OUT as a file to convert the weights alone")
    if to != SAFETENSORS or not checkpoint.is_dino_wm:
        target.write_bytes(source.read_bytes())
        return
    config = read_model_config(source)
    ours = stored_architecture(replace(checkpoint, config=config)).as_dict()
    env, normalized = config.get("env"), config.get("normalize_action")
    ours |= {"env": {"name": env["name"]}} if isinstance(env, dict) and "name" in env else {}
    ours |= {"normalize_action": normalized} if isinstance(normalized, bool) else {}
    target.write_text(OmegaConf.to_yaml(OmegaConf.create(ours)), encoding="utf-8")


def _original(checkpoint: Checkpoint, like: Path | None) -> Path:
    """Find the DINO-WM file that a model goes back to."""
    if like is not None:
        return like
    child, now = checkpoint.path, checkpoint
    for _ in range(MAX_GENERATIONS):
        if now.is_dino_wm:
            return now.path
        named = now.about.get("parent")
        if not named:
            origin = f"comes from {now.about['layout']}" if "layout" in now.about else "was trained from scratch"
            raise CheckpointError(f"{child} {origin}: there is no original that --to {DINO_WM} could copy")
        parent = Path(named)
        if not parent.is_file() or sha256(parent) != now.about.get("parent_sha256"):
            state = "has changed since" if parent.is_file() else "is not here"
            raise CheckpointError(f"{parent}, which {now.path} was made from, {state}; name the original with --like")
        now = read_any(parent)
    raise CheckpointError(f"{child} has more than {MAX_GENERATIONS} ancestors; name the original with --like")


@contextlib.contextmanager
def _fresh(target: Path, done: list[str]) -> Iterator[Path]:
    """Give a temporary path that takes the name ``target`` if nothing has it; adds to ``done`` what happened.

    Raises:
        CheckpointError: If there is a file of that name with another content.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(target)
    try:
        yield temporary
        if not target.exists():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            _name_exclusively(temporary, target)
            done.append(f"wrote {target}")
        elif filecmp.cmp(temporary, target, shallow=False):
            done.append(f"{target} is there already, with the same content")
        else:
            raise CheckpointError(f"{target} exists and holds something else; it was left as it is: choose another OUT")
    except FileExistsError as error:
        raise CheckpointError(f"{target} is a broken link or appeared meanwhile; it was left as it is") from error
    finally:
        temporary.unlink(missing_ok=True)


def _name_exclusively(temporary: Path, target: Path) -> None:
    """Give a finished file its name, unless the name is taken, which renaming would not notice."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        if os.path.lexists(target):  # a file system without hard links
            raise FileExistsError(target) from error
        temporary.rename(target)
