"""What ``python -m doctor`` looks at in files: weights, data sets, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import OmegaConf
from tqdm import tqdm

from datasets.files import ROOT_VARIABLE, DatasetError, dataset_root
from datasets.trajectories import Trajectories
from doctor.installation import REPOSITORY, Missing, parts
from models.checkpoints.native import read_checkpoint
from models.foreign.dinov2_weights import WeightsError, WeightsNotFoundError, find_weights
from models.networks.dinov2 import DinoV2Encoder


def encoder_weights(weights: Path | None) -> str:
    """DINOv2 ViT-S/14: the given file, or where torch keeps what it downloads."""
    named = weights is not None
    try:
        path = find_weights("dinov2_vits14", str(weights) if named else None, download=False)
        DinoV2Encoder(weights=str(path))
    except WeightsNotFoundError as error:
        found, remedy = parts(str(error))
        remedy = f"let train.py download it, or use encoder=small, which needs none, or {remedy}"
        raise Missing(found.replace(" and encoder.download=false", ""), remedy, required=named) from error
    except WeightsError as error:
        raise Missing(str(error), "fetch the official file again", required=named) from error
    return f"{path}, whole"


def data_root(given: Path | None) -> str:
    """Whether data are found, at ``given`` or DATASET_DIR."""
    if given is not None and not given.is_dir():
        raise Missing(f"--data {given} is no folder", "name one that is there", required=True)
    try:
        root = given or dataset_root()
    except DatasetError as error:
        raise Missing(str(error).split(". ")[0], f"export {ROOT_VARIABLE}=/path/to/data") from error
    found = [name for name, _ in data_sets(given)]
    if not found:
        names = ", ".join(_folders())
        remedy = f"fetch or collect some (docs/data.md): {names}"
        raise Missing(f"none in {root}", remedy, required=given is not None)
    return f"{', '.join(found)} in {root}"


def data_sets(given: Path | None) -> Iterator[tuple[str, Path]]:
    """(environment, folder) of the data sets below ``given`` or DATASET_DIR, or of the one that ``given`` is."""
    try:
        root = given or dataset_root()
    except DatasetError:
        return
    for folder, env in _folders().items():
        if (root / folder).is_dir():
            yield env, root / folder
        elif root.is_dir() and root.resolve().name == folder:
            yield env, root


def _folders() -> dict[str, str]:
    """Folder below DATASET_DIR -> environment, of every config."""
    paths = sorted((REPOSITORY / "conf" / "dataset").glob("*.yaml"))
    readers: dict[str, Any] = {path.stem: get_class(OmegaConf.load(path)._target_) for path in paths}
    return {reader.folder: env for env, reader in readers.items()}


def data_set(env: str, folder: Path, whole: bool) -> str:
    """Tables and the files' sizes; with ``whole``, every frame is decoded."""
    config = OmegaConf.load(REPOSITORY / "conf" / "dataset" / f"{env}.yaml")
    try:
        data: Trajectories = get_class(config._target_)(data_path=folder)
    except (DatasetError, OSError) as error:
        raise Missing(str(error), "fetch it again, or collect it (docs/data.md)", required=whole) from error
    if not whole:
        return f"{len(data)} trajectories of {data.frame_size} pixels (--data {folder} reads every frame)"
    broken = []
    for number in tqdm(range(len(data)), desc=str(folder), unit="trajectory", leave=False):
        try:
            data.frames(number, range(int(data.lengths[number])))
        except (DatasetError, OSError) as error:
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
    return f"{found.path}, epoch {found.epoch}"
