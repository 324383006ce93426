"""Writing tensors; the error says what the disk says, whatever the library makes of it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from utils.files import temporary_path, write_file
from utils.reading.checksums import append_checksums
from utils.reading.safetensors_file import CHECKSUM, UNKNOWN, add_checksum
from utils.retry import Retry

_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # as Rust writes it


class _Witness:
    """A file that remembers what went wrong: torch turns every failing write into a RuntimeError about its archive."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: BaseException | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except BaseException as error:  # Ctrl-C, too
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def write_torch(path: Path, value: object, retry: Retry | None = None) -> None:
    """Call ``torch.save`` atomically, with checksums; the bytes do not depend on the file's name.

    Raises:
        OSError: If the disk does not take it; see ``write_file``, also for ``retry``.
    """
    write_file(path, lambda temporary: _save(temporary, value), retry, tensor_bytes(value))


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], retry: Retry | None = None
) -> None:
    """Call ``safetensors.torch.save_file`` atomically, with a checksum and the permissions of other files.

    Raises:
        OSError: If the disk does not take it; see ``write_file``, also for ``retry``.
    """
    write_file(path, lambda temporary: _save_safetensors(temporary, tensors, metadata), retry, tensor_bytes(tensors))


def tensor_bytes(value: object) -> int:
    """Bytes of all tensors in nested containers: about the size of their file."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(tensor_bytes(item) for item in value.values())
    return sum(tensor_bytes(item) for item in value) if isinstance(value, list | tuple) else 0


def _save(path: Path, value: object) -> None:
    with path.open("wb") as file:
        witness = _Witness(file)
        try:
            torch.save(value, witness)  # type: ignore[arg-type]  # it asks for write and flush only
        except RuntimeError:
            if witness.error is None:
                raise
            raise witness.error from None
    append_checksums(path, "zip")


def _save_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    # beside the file, the library makes a temporary one: here in a folder whose name shows that it is ours
    folder = temporary_path(path)
    folder.mkdir()
    try:
        save_file(_apart(tensors), folder / "tensors", metadata={**metadata, CHECKSUM: UNKNOWN})
        add_checksum(folder / "tensors")
        (folder / "tensors").replace(path)
    except SafetensorError as error:
        number = _SYSTEM_ERROR.search(str(error))
        if number is None:
            raise OSError(f"{path.parent}: {error}") from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    path.chmod(0o666 & ~_umask())  # safetensors would keep it from everybody else


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share their memory with an earlier one, which the format does not know."""
    apart, seen = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def _umask() -> int:
    """Read the umask of this process, which is possible only by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
