"""A weights file of ours, safetensors with a header that says what it is: reading the header, and writing all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from models.foreign.inert_pickle import CheckpointError
from models.world_model import WorldModel
from utils.moved_classes import current_names
from utils.reading.checksums import damaged
from utils.reading.json_file import parse_json
from utils.reading.opening import FileError
from utils.reading.safetensors_file import SafetensorsFile, open_safetensors
from utils.retry import Retry
from utils.tensor_files import write_safetensors

HEADER = "world_model"  # entry of the metadata of a safetensors file
FORMAT = "1"
REMEDY = "restore it from a copy"


@contextlib.contextmanager
def open_own_file(path: Path) -> Iterator[tuple[SafetensorsFile, dict[str, Any]]]:
    """Open a weights file of ours and read its header, ``epoch`` and ``Checkpoint.about``; no tensor is read yet.

    Raises:
        CheckpointError: If the file is missing or damaged, or somebody else wrote it.
    """
    try:
        with open_safetensors(path) as file:
            about = read_about(file.metadata.get(HEADER, "null"), path)
            if set(file.metadata) != {HEADER}:
                raise damaged(path)  # the name of the checksum, say
            yield file, about
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


def read_about(text: str, path: Path) -> dict[str, Any]:
    """Read ``epoch`` and ``Checkpoint.about`` from the header of ``path``.

    Raises:
        CheckpointError: If the text is not of our making.
        FileError: If it is no JSON.
    """
    about = {} if text == "null" else parse_json(text, dict, f"{path}: its {HEADER} entry", REMEDY)
    if about.get("format") != FORMAT or "epoch" not in about:
        raise CheckpointError(
            f"{path} was not written by this project: its header has no {HEADER} entry of format {FORMAT}"
        )
    return checked({name: current_names(value) for name, value in about.items() if name != "format"}, path)


def checked(about: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Hold facts of a file against what is expected of them.

    Raises:
        CheckpointError: If one is of another kind.
    """
    for name, (is_right, expected) in EXPECTED.items():
        if name in about and not is_right(about[name]):
            raise CheckpointError(f"{path}: {name} in its {HEADER} entry must be {expected}; {REMEDY}")
    return dict(about)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) in (int, float) for each in value)


def _is_range(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(_are_numbers, value)))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(map(_are_numbers, value))


def _are_statistics(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_numbers, value.values()))


EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "epoch": (_is_count, "a whole number from 0"),
    "step": (_is_count, "a whole number from 0"),
    "validation": (
        lambda value: isinstance(value, list) and bool(value) and all(map(_is_count, value)),
        "a list of trajectory numbers, at least one",
    ),
    "normalizer": (_are_statistics, "lists of numbers by name"),
    "statistics": (_are_statistics, "lists of numbers by name"),
    "layout": (_is_text, "a text or null"),
    "action_range": (_is_range, "two lists of numbers"),
    "action_quantiles": (_is_table, "at least two lists of numbers"),
    "parent": (_is_text, "a text or null"),
    "parent_sha256": (_is_text, "a text or null"),
    "encoder_sha256": (_is_text, "a text or null"),
}
