"""The architecture of a run: its checkpoint's, else that of the config; a contradiction is an error."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Collection, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import OmegaConf

from models.architecture import BEHIND_PROJECTOR, DEFAULTS, OPTIONAL, PARTS, SCALARS, Architecture
from models.checkpoints.config_file import OPTION_FOLDERS
from models.checkpoints.native import Checkpoint, by_part
from models.foreign.dino_wm import PLAIN, CheckpointError
from models.foreign.dino_wm_config import shown_by_embeddings, translate_config
from utils.schema import Component

log = logging.getLogger(__name__)

CONFIG = OPTION_FOLDERS[0]
TRUSTED = "trusted_targets"  # a list for the config, no argument of the part
CHANGEABLE = ("weights", "download", "dropout", "emb_dropout")
"""Arguments of a part that may differ from the checkpoint's: they change neither shapes nor meaning of its tensors."""

FOREIGN_CLASSES = {
    "predictor": "models.vit.ViTPredictor",
    "decoder": "models.vqvae.VQVAE",
    "action_encoder": "models.proprio.ProprioceptiveEmbedding",
    "proprio_encoder": "models.proprio.ProprioceptiveEmbedding",
}
"""Classes that DINO-WM's checkpoints pickle, by their names there, as far as there is a counterpart here."""
FOREIGN_PARTS = {"predictor": "vit", "decoder": "vqvae", "action_encoder": "proprio", "proprio_encoder": "proprio"}
"""Our config options for them."""


def settle_architecture(wanted: Architecture, explicit: Set[str], checkpoint: Checkpoint | None) -> Architecture:
    """Settle the architecture to build.

    A projector may be put on the encoder of a checkpoint that has none. The parts behind it start anew then, so that
    what is said of them holds.

    Args:
        wanted: That of the composed config.
        explicit: Keys that the user set, such as "num_hist", "encoder" (a config group) or "predictor.depth".
        checkpoint: The model to start from; None trains from scratch and takes everything from ``wanted``.

    Raises:
        ValueError: If an explicit value contradicts the checkpoint; the message names the key and both values.
    """
    if checkpoint is None:
        return wanted
    stored = stored_architecture(checkpoint)
    if wanted.projector is not None and stored.projector is None:
        stored = _with_projector(wanted, stored, explicit, checkpoint.path)
    settled, conflicts = stored, []
    for key in SCALARS:
        asked, has = getattr(wanted, key), getattr(stored, key)
        if asked != has and key in explicit:
            conflicts.append(f"{key}={asked} was asked for, the checkpoint has {key}={has}")
        elif asked != has:
            log.info("%s=%s is taken from the checkpoint", key, has)
    for part in (*PARTS, *OPTIONAL):
        asked, has = getattr(wanted, part), getattr(stored, part)
        if has is None:
            settled = replace(settled, **{part: asked})
        elif asked is None and part in explicit:
            conflicts.append(f"{part}=none was asked for, the checkpoint has {has.settings['_target_']}")
        elif asked is not None:
            conflicts += _part_conflicts(part, asked.settings, has.settings, explicit)
            settled = settled.with_arguments(part, **_changeable(part, asked.settings, has.settings, explicit))
    if conflicts:
        raise ValueError(
            f"{checkpoint.path}: {'; '.join(conflicts)}. Leave the override out, or train from scratch elsewhere"
        )
    return settled


def _with_projector(wanted: Architecture, stored: Architecture, explicit: Set[str], path: Path) -> Architecture:
    """Put the projector that is asked for on a stored encoder, and the explicit settings into the parts behind it."""
    assert wanted.projector is not None, "asked for"
    log.warning(
        "%s has no projector: %s is put on its encoder. Encoder, action and proprio encoder are kept; projector, "
        "%s START ANEW",
        *(path, wanted.projector.settings["_target_"], " and ".join(BEHIND_PROJECTOR[:2])),
    )
    renewed: dict[str, Any] = {"projector": wanted.projector, "proposal": wanted.proposal}
    for part in ("predictor", "decoder"):
        asked, has = getattr(wanted, part), getattr(stored, part)
        given = {key: value for key, value in asked.settings.items() if f"{part}.{key}" in explicit}
        renewed[part] = asked if part in explicit else Component({**has.settings, **given})
    renewed |= {"has_decoder": wanted.has_decoder} if "has_decoder" in explicit else {}
    return replace(stored, **renewed)


def stored_architecture(checkpoint: Checkpoint) -> Architecture:
    """Read the architecture from a checkpoint's ``hydra.yaml`` and tensors.

    A ``_target_`` in the file is only ever compared with those of our own config options, never imported.

    Raises:
        CheckpointError: If a key is missing or a class is unknown.
    """
    source = checkpoint.path if checkpoint.foreign else checkpoint.path.parent.parent / "hydra.yaml"
    if checkpoint.is_dino_wm:
        return _from_dino_wm(checkpoint, source)
    missing = [key for key in (*SCALARS, *PARTS) if key not in DEFAULTS.keys() | checkpoint.config.keys()]
    if missing:
        raise CheckpointError(f"{source} lacks {', '.join(missing)}; restore it from a copy of the run")
    stored = DEFAULTS | {key: checkpoint.config[key] for key in SCALARS if key in checkpoint.config}
    for key, value in stored.items():
        kind = bool if key.startswith("has_") or key in DEFAULTS else int
        if type(value) is not kind:
            raise CheckpointError(f"{source}: {key} must be of type {kind.__name__}, got {value!r}")
    env: Any = checkpoint.config.get("env")
    length = env.get("env_action_dim") if isinstance(env, Mapping) else None
    lengths = [length] if type(length) is int and length > 0 else []  # else that of DINO-WM's environments
    for key, value in shown_by_embeddings(by_part(checkpoint.tensors), *lengths).items():
        if stored[key] != value:
            raise CheckpointError(
                f"{source} says {key}: {stored[key]}, but the weights beside it were built with {value}"
            )
    present = (*PARTS, *checkpoint.optional_parts)
    parts = {part: _known(part, checkpoint.config.get(part), source) for part in present}
    return Architecture.from_dict(stored | parts)


def _from_dino_wm(checkpoint: Checkpoint, source: Path) -> Architecture:
    found = translate_config(checkpoint.config, by_part(checkpoint.tensors), source)
    stored = DEFAULTS | {key: found[key] for key in SCALARS if key in found}
    stored["encoder"] = _adopt("encoder", _ours("encoder", "dino"), found["encoder"], source)
    classes = checkpoint.about["classes"]
    for part, option in FOREIGN_PARTS.items():
        pickled = classes.get(part, PLAIN)
        if pickled in (PLAIN, FOREIGN_CLASSES[part]):
            stored[part] = _adopt(part, _ours(part, option), found.get(part, {}), source)
        elif part == "decoder":  # it only draws pictures
            log.warning("%s: its decoder, a %s, has no counterpart here: nothing is drawn", checkpoint.path, pickled)
            stored |= {"has_decoder": False, part: _adopt(part, _ours(part, option), {}, source)}
        else:
            raise CheckpointError(
                f"{checkpoint.path}: the {part} is a {pickled}, which this project has no counterpart of; it reads "
                f"{FOREIGN_CLASSES[part]}"
            )
    return Architecture.from_dict(stored)


def _known(part: str, node: Any, source: Path) -> dict[str, Any]:
    """Return our own option with the target that ``node`` names, and the arguments of ``node``."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    files = [path for folder in OPTION_FOLDERS for path in sorted((folder / part).glob("*.yaml"))]
    targets = {option["_target_"]: option for option in map(_load, files) if "_target_" in option}
    if not isinstance(target, str) or target not in targets:
        raise CheckpointError(
            f"{source}: {part}._target_ is {target!r}; known are {', '.join(sorted(targets))}, and with --config-dir "
            "FOLDER what options there name"
        )
    constructor = inspect.signature(get_class(target)).parameters  # it may have been given more
    return _adopt(part, targets[target], node, source, constructor)


def _adopt(
    part: str, option: Mapping[str, Any], arguments: Mapping[str, Any], source: Path, further: Collection[str] = ()
) -> dict[str, Any]:
    """Return a config option, with those ``arguments`` that it knows.

    Raises:
        CheckpointError: If a value is more than plain data: a class that is named inside of it, or that an
            interpolation makes up, would be called when the part is built.
    """
    known = {*option, *further} - {"_target_"}
    taken = {key: value for key, value in arguments.items() if key in known}
    for key, value in taken.items():
        if not _is_plain(value):
            raise CheckpointError(f"{source}: {part}.{key} must be a plain value, got {value!r}")
    # what an option takes from the rest of a config stands in the file; in an older one, the class's own default holds
    return {key: value for key, value in option.items() if "${" not in str(value)} | taken


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a truth value or a text, or lists of them, by name or not."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and not key.startswith("_") for key in value) and _is_plain([*value.values()])
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | None) or (isinstance(value, str) and "${" not in value)


def _ours(part: str, name: str) -> Mapping[str, Any]:
    return _load(CONFIG / part / f"{name}.yaml")


@functools.cache  # every checkpoint that is loaded is held against the same few files
def _load(path: Path) -> Mapping[str, Any]:
    loaded = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items() if key != TRUSTED}


def _part_conflicts(part: str, wanted: Mapping[str, Any], stored: Mapping[str, Any], explicit: Set[str]) -> list[str]:
    if wanted["_target_"] != stored["_target_"]:
        if part in explicit:
            return [f"{part} {wanted['_target_']} was asked for, the checkpoint has {stored['_target_']}"]
        log.info("%s %s is taken from the checkpoint", part, stored["_target_"])
        return []
    return [
        f"{part}.{key}={wanted[key]} was asked for, the checkpoint has {part}.{key}={stored[key]}"
        for key in wanted
        if f"{part}.{key}" in explicit and key not in CHANGEABLE and wanted[key] != stored.get(key) is not None
    ]


def _changeable(part: str, wanted: Mapping[str, Any], stored: Mapping[str, Any], explicit: Set[str]) -> dict[str, Any]:
    """What the user set and may: the changeable arguments, and those that the checkpoint says nothing about."""
    settable = (key for key, value in stored.items() if key in CHANGEABLE or value is None)
    return {key: wanted[key] for key in settable if f"{part}.{key}" in explicit and key in wanted}
