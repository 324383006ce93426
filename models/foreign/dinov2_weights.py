"""The official DINOv2 weights: finding, downloading and checking them."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.foreign.dinov2_names import from_transformers, is_transformers
from models.foreign.inert_pickle import UnsafeCheckpointError, load_inert
from utils.downloads import Expected, download
from utils.printable import printable
from utils.reading.legacy_archive import open_archive
from utils.reading.opening import FileError, failure_reason
from utils.reading.pickle_values import Inert
from utils.reading.safetensors_file import open_safetensors
from utils.reading.tensor_record import TensorRecord

log = logging.getLogger(__name__)

BASE_URL = "https://dl.fbaipublicfiles.com/dinov2"
PAUSES = (1, 2, 4)  # seconds before each further attempt: who is offline shall not wait for long
MOST_NAMES = 8  # tensors listed per kind of mismatch
UNUSED = "mask_token"  # in every official file
FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
"""Number types that weights may have; as safetensors and as torch call them."""


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
OFFICIAL = {
    "dinov2_vits14": (88_283_115, "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
    "dinov2_vitb14": (346_378_731, "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    "dinov2_vitl14": (1_217_586_395, "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
}
"""Bytes and SHA-256 of the official files. Their authors publish none; many independent downloads have these."""
WIDTHS = {384: "dinov2_vits14", 768: "dinov2_vitb14", 1024: "dinov2_vitl14", 1536: "dinov2_vitg14"}


class WeightsError(FileError):
    """A file does not hold the DINOv2 weights that were asked for."""


class WeightsNotFoundError(WeightsError):
    """There is no weights file and none could be fetched."""


def find_weights(name: str, weights: str | None, may_download: bool = True) -> Path:
    """Find the weights of model ``name``: ``weights`` if given, else the torch hub's cache, else a download into it.

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
    if not may_download:
        raise WeightsNotFoundError(f"no DINOv2 weights at {cached} and encoder.download=false; {remedy}")
    try:
        size, digest = OFFICIAL.get(name, (None, None))
        download(url, cached, Expected(size=size, sha256=digest), pauses=PAUSES)
    except OSError as error:
        raise WeightsNotFoundError(f"DINOv2 weights could not be downloaded ({error}); {remedy}") from error
    return cached


def check_official(path: Path, name: str, digest: str) -> None:
    """Refuse a file that has the name and the length of the official one, but not its content.

    Args:
        path: The file.
        name: Of the model.
        digest: The file's SHA-256.

    Raises:
        WeightsError: If it differs.
    """
    size, official = OFFICIAL.get(name, (None, None))
    if path.name == f"{name}_pretrain.pth" and path.stat().st_size == size and digest != official:
        raise WeightsError(
            f"{path} is damaged: its SHA-256 is {digest} instead of {official}; delete it and get it again, or if it "
            "holds weights of your own, give it another name"
        )


@dataclass(frozen=True)
class _Stored:
    """A tensor in a file: what is known of it before it is read, and how to read it."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]


def read_weights(path: Path, name: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read a state dict and check it against the names and shapes of ``expected`` (tensors without data do).

    Only tensors that have the right name, shape and type are read.

    Raises:
        WeightsError: One error that lists every kind of mismatch, or says why the file cannot be read.
    """
    shapes = {key: tuple(value.shape) for key, value in expected.items()}
    with _opened(path) as named:
        found = _with_official_names(named, shapes.get(UNUSED, ()))
        problems = {
            "missing": [key for key in shapes if key not in found],
            "unexpected": [key for key in found if key not in shapes],
            "wrong shape": [
                f"{key} {found[key].shape} instead of {shape}"
                for key, shape in shapes.items()
                if key in found and found[key].shape != shape
            ],
            "wrong type": [f"{key} {each.dtype}" for key, each in found.items() if each.dtype not in FLOATS.values()],
        }
        good = [k for k, each in found.items() if each.shape == shapes.get(k) and each.dtype in FLOATS.values()]
        tensors = {key: found[key].read().float() for key in good}
        problems["not finite"] = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
        listed = [f"{kind}: {_abridged(entries)}" for kind, entries in problems.items() if entries]
        if listed:
            likeness = _likeness(found, name)
            raise WeightsError(f"{path} does not hold the weights of {name}{likeness}; " + "; ".join(listed))
    return {key: tensors[key] for key in shapes}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[dict[str, _Stored]]:
    """Open a file and give its tensors; damage that shows in the meantime becomes a ``WeightsError``."""
    try:
        if path.suffix == ".safetensors":
            with open_safetensors(path) as file:
                yield {
                    key: _Stored(shape, FLOATS.get(file.dtypes[key], file.dtypes[key]), partial(file.read, key))
                    for key, shape in file.shapes.items()
                }
        else:
            with open_archive(path) as archive:
                yield _named(load_inert(archive, path), archive.tensor)
    except WeightsError:
        raise
    except UnsafeCheckpointError as error:
        raise WeightsError(str(error)) from error
    except Exception as error:  # damaged bytes make anything of the readers
        raise WeightsError(
            f"{path} cannot be read as a DINOv2 state dict ({failure_reason(error)}); delete it and get it again"
        ) from error


def _with_official_names(found: dict[str, _Stored], unused: tuple[int, ...]) -> dict[str, _Stored]:
    """Give tensors of transformers 4 or 5, or of timm, the official names.

    timm's are the official ones, without the mask token, which is used in the pretraining alone.
    """
    if is_transformers(found):
        found = from_transformers(found, _joined)
    if UNUSED not in found and "pos_embed" in found:
        found |= {UNUSED: _Stored(unused, "float32", lambda: torch.zeros(unused))}
    return found


def _joined(parts: list[_Stored]) -> _Stored:
    shape = (sum(part.shape[0] for part in parts if part.shape), *parts[0].shape[1:])
    return _Stored(shape, parts[0].dtype, lambda: torch.cat([part.read() for part in parts]))


def _named(content: object, read: Callable[[Any], Tensor]) -> dict[str, _Stored]:
    """Return the tensors in the content of a .pth file."""
    if isinstance(content, Inert):
        raise ValueError(f"it is a whole pickled {content.global_name}, code and all; save its state_dict() instead")
    if not isinstance(content, Mapping):
        raise ValueError("it holds something else than named tensors")
    nested = [key for key, value in content.items() if isinstance(value, Mapping) and value]
    if nested:
        raise ValueError(
            f"it holds something else than named tensors; save what is under {_abridged(nested)} by itself"
        )
    odd = [key for key, value in content.items() if not isinstance(key, str) or not isinstance(value, TensorRecord)]
    if odd:
        raise ValueError(f"it holds something else than named tensors, as {_abridged(odd)}")
    return {
        key: _Stored(tuple(value.shape), str(value.dtype).removeprefix("torch."), partial(read, value))
        for key, value in content.items()
    }


def _abridged(entries: Sequence[object]) -> str:
    shown = ", ".join(printable(str(entry), 80) for entry in entries[:MOST_NAMES])
    return shown if len(entries) <= MOST_NAMES else f"{shown} and {len(entries) - MOST_NAMES} more"


def resemblance(found: Mapping[str, Any]) -> str | None:
    """Name the known model that a state dict (of tensors, or of anything with a shape) seems to be of."""
    shape = getattr(found.get("cls_token"), "shape", ())
    if not shape or shape[-1] not in WIDTHS:
        return None
    return WIDTHS[shape[-1]] + ("_reg" if "register_tokens" in found else "")


def _likeness(found: Mapping[str, _Stored], name: str) -> str:
    """ ", it looks like ..." if the tensors are those of another known model."""
    prefix = next((key.removesuffix("cls_token") for key in found if key.endswith(".cls_token")), None)
    if prefix:
        return f", whose names do not begin with {printable(prefix, 80)}: save the tensors without that prefix"
    looks_like = resemblance(found)
    if looks_like in (None, name):
        return ""
    depth = len({match[0] for key in found if (match := re.match(r"blocks\.\d+\.", key))})
    return f", it looks like {looks_like} ({depth} blocks)"
