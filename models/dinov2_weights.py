"""The official DINOv2 weights: where they are, how they get here, and whether a file holds them."""

from __future__ import annotations

import logging
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from models.pickle_scan import failure_reason
from utils.files import atomic_path

log = logging.getLogger(__name__)

BASE_URL = "https://dl.fbaipublicfiles.com/dinov2"
TIMEOUT = 30.0  # seconds without a byte
UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, LookupError, UnpicklingError, safetensors.SafetensorError)
MOST_NAMES = 8  # tensors listed per kind of mismatch


@dataclass(frozen=True)
class Architecture:
    """Sizes of a DINOv2 model: token width, blocks, attention heads."""

    embed_dim: int
    depth: int
    num_heads: int


ARCHITECTURES = {
    "dinov2_vits14": Architecture(384, 12, 6),
    "dinov2_vitb14": Architecture(768, 12, 12),
    "dinov2_vitl14": Architecture(1024, 24, 16),
}
WIDTHS = {384: "dinov2_vits14", 768: "dinov2_vitb14", 1024: "dinov2_vitl14", 1536: "dinov2_vitg14"}


class WeightsError(ValueError):
    """A file does not hold the DINOv2 weights that were asked for."""


class WeightsNotFoundError(WeightsError):
    """There is no weights file and none could be fetched."""


def find_weights(name: str, weights: str | None, download: bool = True) -> Path:
    """Path of the weights of model ``name``: ``weights`` if given, else the torch hub's cache, else a download into it.

    Raises:
        WeightsNotFoundError: If there is no such file, saying how to get it.
    """
    file_name = f"{name}_pretrain.pth"
    url = f"{BASE_URL}/{name}/{file_name}"
    remedy = f"get it from {url} and pass encoder.weights=/path/to/{file_name}"
    if weights is not None:
        if not Path(weights).expanduser().is_file():
            raise WeightsNotFoundError(f"encoder.weights={weights} is not a file; {remedy}")
        return Path(weights).expanduser()
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    if cached.is_file():
        return cached
    remedy += f", or put it at {cached}"
    if not download:
        raise WeightsNotFoundError(f"no DINOv2 weights at {cached} and encoder.download=false; {remedy}")
    try:
        fetch(url, cached)
    except (OSError, HTTPException) as error:
        raise WeightsNotFoundError(f"DINOv2 weights could not be downloaded ({error}); {remedy}") from error
    return cached


def fetch(url: str, destination: Path) -> None:
    """Download ``url`` with a progress bar; ``destination`` appears only when it is complete.

    Raises:
        OSError: If the server cannot be reached, stops early, or the disk is full.
    """
    log.info("downloading %s to %s", url, destination)
    with atomic_path(destination) as partial, partial.open("wb") as file:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            total = int(response.headers.get("Content-Length") or 0)
            with tqdm(total=total or None, unit="B", unit_scale=True, desc=destination.name) as bar:
                while chunk := response.read(1 << 20):
                    file.write(chunk)
                    bar.update(len(chunk))
        if total and file.tell() != total:
            raise OSError(f"{url}: got {file.tell()} of {total} bytes")


def read_weights(path: Path, name: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read a state dict and check it against the names and shapes of ``expected`` (tensors without data do).

    Raises:
        WeightsError: One error that lists every kind of mismatch, or says why the file cannot be read.
    """
    found = _read_tensors(path)
    shapes = {key: tuple(value.shape) for key, value in expected.items()}
    problems = {
        "missing": [key for key in shapes if key not in found],
        "unexpected": [key for key in found if key not in shapes],
        "wrong shape": [
            f"{key} {tuple(found[key].shape)} instead of {shape}"
            for key, shape in shapes.items()
            if key in found and tuple(found[key].shape) != shape
        ],
        "not finite": [key for key, value in found.items() if not value.isfinite().all()],
    }
    listed = [f"{kind}: {_abridged(entries)}" for kind, entries in problems.items() if entries]
    if listed:
        raise WeightsError(f"{path} does not hold the weights of {name}{_likeness(found, name)}; " + "; ".join(listed))
    return {key: found[key].float() for key in shapes}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise WeightsError(_unreadable(path, failure_reason(error))) from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(_unreadable(path, "it holds something else than named tensors"))
    return dict(found)


def _unreadable(path: Path, reason: str) -> str:
    return f"{path} cannot be read as a DINOv2 state dict ({reason}); delete it and get it again"


def _abridged(entries: list[str]) -> str:
    shown = ", ".join(entries[:MOST_NAMES])
    return shown if len(entries) <= MOST_NAMES else f"{shown} and {len(entries) - MOST_NAMES} more"


def resemblance(found: Mapping[str, Any]) -> str | None:
    """Which known model a state dict (of tensors, or of anything with a shape) seems to be of, e.g. "dinov2_vits14"."""
    token = found.get("cls_token")
    if token is None or token.shape[-1] not in WIDTHS:
        return None
    return WIDTHS[token.shape[-1]] + ("_reg" if "register_tokens" in found else "")


def _likeness(found: Mapping[str, Tensor], name: str) -> str:
    """ ", it looks like ..." if the tensors are those of another known model."""
    if "embeddings.cls_token" in found:
        return ", it looks like a Hugging Face transformers checkpoint; the official file is needed"
    looks_like = resemblance(found)
    if looks_like in (None, name):
        return ""
    depth = len({match[0] for key in found if (match := re.match(r"blocks\.\d+\.", key))})
    return f", it looks like {looks_like} ({depth} blocks)"
