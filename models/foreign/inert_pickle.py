"""Loading a DINO-WM checkpoint's pickle without importing or running anything that it names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.foreign.pickle_names import stand_in
from utils.reading.legacy_archive import is_legacy
from utils.reading.opening import FileError, failure_reason
from utils.reading.pickles import ForeignNamesError
from utils.reading.torch_archive import Archive, TorchArchive


class CheckpointError(FileError):
    """A file is not a DINO-WM checkpoint, or a damaged one."""


class UnsafeCheckpointError(CheckpointError):
    """A file asks for code that no DINO-WM checkpoint needs."""


@contextlib.contextmanager
def open_checkpoint(path: Path) -> Iterator[TorchArchive]:
    """Open the archive of a file; damage that shows while it is open becomes a ``CheckpointError``."""
    try:
        if is_legacy(path):
            raise ValueError("it is in the format of torch before 1.6; load and save it once with a newer torch")
        with TorchArchive(path) as archive:
            yield archive
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes make anything of the readers
        raise CheckpointError(unreadable(path, error)) from error


def load_inert(archive: Archive, path: Path) -> Any:
    """The content of an archive, with an ``Inert`` for every object and a ``TensorRecord`` for every tensor.

    No tensor is read. Where a tensor was saved from (a GPU, say) does not matter.

    Raises:
        UnsafeCheckpointError: If the pickle names anything that a DINO-WM checkpoint does not need. Nothing was run.
        Exception: Of any kind, if it is damaged.
    """
    try:
        return archive.load(stand_in)
    except ForeignNamesError as error:
        raise UnsafeCheckpointError(
            f"{path} asks for {error.names}, which no DINO-WM checkpoint needs; it was not loaded and nothing in it "
            "was run. Do not load it with another tool; get the checkpoint again from where it was published"
        ) from None


def unreadable(path: Path, error: Exception) -> str:
    """The message for a file that turned out to be damaged."""
    if not path.is_file():
        return f"{path} does not exist or is not a file"
    size = path.stat().st_size
    reason = failure_reason(error) if size else "it is empty"
    return (
        f"{path} ({size} bytes) is not a readable PyTorch checkpoint: {reason}. "
        "It may be incomplete; copy or download it again"
    )
