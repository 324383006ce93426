"""Checks of files: weights, data sets, checkpoints, and options of the user's own."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from tqdm import tqdm

from datasets.files import ROOT_VARIABLE, DatasetError, dataset_root
from datasets.formats.episodes import EpisodeTrajectories
from datasets.trajectories import Trajectories
from doctor.installation import REPOSITORY, Missing, parts, simulator
from launch.composing import Composer
from launch.conf import own_classes
from launch.values import TRUSTED
from models.checkpoints.native import read_checkpoint
from models.foreign.dinov2_weights import WeightsError, WeightsNotFoundError, find_weights
from models.networks.dinov2 import DinoV2Encoder
from utils.moved_classes import current_names


def encoder_weights(weights: Path | None) -> str:
    """DINOv2 ViT-S/14: the given file, or where torch keeps what it downloads."""
    named = weights is not None
    try:
        path = find_weights("dinov2_vits14", str(weights) if named else None, may_download=False)
        DinoV2Encoder(weights=str(path))
    except WeightsNotFoundError as error:
        found, remedy = parts(str(error))
        remedy = f"let train.py download it, or use encoder=small, which needs none, or {remedy}"
        raise Missing(found.replace(" and encoder.download=false", ""), remedy, required=named) from error
    except WeightsError as error:
        raise Missing(str(error), "fetch the official file again", required=named) from error
    return f"{path}, whole"


def data_root(given: Path | None) -> str:
    """Find the data sets at ``given`` or DATASET_DIR."""
    if given is not None and not given.is_dir():
        raise Missing(f"--data {given} is no folder", "name one that is there", required=True)
    try:
        root = given or dataset_root()
    except DatasetError as error:
        raise Missing(str(error).split(". ")[0], f"export {ROOT_VARIABLE}=/path/to/data") from error
    found = [name for name, _ in data_sets(given)]
    others = [folder.name for folder in _subfolders(root) if folder not in [place for _, place in data_sets(given)]]
    if not found:
        remedy = f"fetch or collect some (docs/data.md): {', '.join(_released())}"
        raise Missing(f"none in {root}", remedy, required=given is not None)
    unknown = f" (not checked, as no format here is known by such a name: {', '.join(others)})" if others else ""
    return f"{', '.join(found)} in {root}{unknown}"


def data_sets(given: Path | None) -> Iterator[tuple[str, Path]]:
    """(environment, folder) of the data sets below ``given`` or DATASET_DIR, or of the one that ``given`` is."""
    try:
        root = (given or dataset_root()).resolve()
    except DatasetError:
        return
    for folder in (root, *_subfolders(root)):
        if folder.name in _released():
            yield _released()[folder.name][0], folder
        elif (folder / "proprio.pth").is_file():
            yield folder.name, folder


@functools.cache
def _released() -> dict[str, tuple[str, Any]]:
    """Folder below DATASET_DIR -> the option of the format that has this folder for itself, and its reader."""
    found = {}
    for path in sorted((REPOSITORY / "conf" / "dataset").glob("*.yaml")):
        settings: Any = OmegaConf.load(path)
        reader: Any = get_class(settings._target_) if "_target_" in settings else None
        if reader is not None and reader.writer is not None and reader.writer.folder:
            found[reader.writer.folder] = path.stem, reader
    return found


def _subfolders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def data_set(env: str, folder: Path, whole: bool) -> str:
    """Tables and the files' sizes; with ``whole``, every frame is decoded."""
    readers = dict(_released().values())
    try:
        data: Trajectories = readers.get(env, functools.partial(EpisodeTrajectories, env))(data_path=folder)
    except (ValueError, OSError) as error:
        raise Missing(str(error), "fetch it again, or collect it (docs/data.md)", required=whole) from error
    if not whole:
        return f"{len(data)} trajectories of {data.frame_size} pixels (--data {folder} reads every frame)"
    broken = []
    for number in tqdm(range(len(data)), desc=str(folder), unit="trajectory", leave=False):
        try:
            data.frames(number, range(int(data.lengths[number])))
        except (ValueError, OSError) as error:
            broken.append(str(error))
    if broken:
        found = f"{len(broken)} of {len(data)} trajectories cannot be read; the first: {broken[0]}"
        raise Missing(found, "fetch these files again", required=True)
    return f"{len(data)} trajectories, {int(data.lengths.sum())} frames of {data.frame_size} pixels, all read"


def checkpoint(folder: Path) -> str:
    """A model directory and its newest weights."""
    try:
        found = read_checkpoint(folder)
    except (ValueError, OSError) as error:
        raise Missing(str(error), "python -m models.checkpoint inspect says more", required=True) from error
    classes = {
        part: settings.get("_target_") for part, settings in found.config.items() if isinstance(settings, Mapping)
    }
    named = {part: str(current_names(name)) for part, name in classes.items() if name}
    foreign = [f"{part} {name}" for part, name in named.items() if name not in own_classes()]
    unknown = f" (not checked, as they are none of this project: {', '.join(foreign)})" if foreign else ""
    return f"{found.path}, epoch {found.epoch}{unknown}"


def own_option(path: Path) -> str:
    """Build what a file in a folder of the user's describes, an environment or a data set."""
    folder, group = path.parents[1], path.parent.name
    envs = sorted(file.stem for file in (folder / "env").glob("*.yaml"))
    env = path.stem if path.stem in envs or group == "env" else envs[0] if envs else "wall"
    composer, chosen = Composer("train", folder), [f"env={env}", *([f"{group}={path.stem}"] if group != "env" else [])]
    package = next(key for file, key in composer.files(chosen) if file == path)
    settings: Any = OmegaConf.select(OmegaConf.create(composer.compose(chosen)), package)
    if group == "env":
        return simulator(settings.simulator)
    plain: Any = OmegaConf.to_container(settings, resolve=True)
    data = instantiate({name: value for name, value in plain.items() if name != TRUSTED})
    return f"{len(data)} trajectories of {data.frame_size} pixels"
