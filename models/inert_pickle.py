"""Loading a torch pickle of foreign objects without importing or running anything that it names."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from models.pickle_scan import failure_reason, globals_in

INERT_PACKAGES = (
    # the modules themselves
    "models.",
    "dinov2.",
    "torch.nn.modules.",
    "torch.nn.parallel.",
    # optimisers and, if a checkpoint was written in the middle of an epoch, the data they hang on to; all ignored
    "accelerate.",
    "datasets.",
    "numpy.",
    "torch.amp.",
    "torch.cuda.amp.",
    "torch.distributed.",
    "torch.optim.",
    "torch.utils.data.",
    "torchvision.transforms.",
)
INERT_NAMES = (
    "builtins.dict",
    "builtins.list",
    "builtins.tuple",
    "collections.defaultdict",
    "functools.partial",
    "pathlib.PosixPath",
    "torch._C.Generator",
)
TORCH_NAMES = (  # what ``torch.load(weights_only=True)`` itself rebuilds
    "_codecs.encode",
    "builtins.set",
    "collections.Counter",
    "collections.OrderedDict",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.serialization._get_layout",
)
TORCH_DTYPES = tuple(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))
UNREADABLE = (  # what damaged bytes make of the readers of zip, pickle and tensors
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)


class CheckpointError(ValueError):
    """A file is not a DINO-WM checkpoint, or a damaged one."""


class UnsafeCheckpointError(CheckpointError):
    """A file asks for code that no DINO-WM checkpoint needs."""


class Inert:
    """Stands in for an object of a foreign class: keeps what was stored of it and does nothing.

    Attributes:
        global_name: dotted name of the class in the file.
        stored: its attributes.
    """

    global_name = ""
    stored: dict[str, Any]

    def __new__(cls, *_: object) -> Inert:
        """Pickles make objects with or without ``__init__``, so the attributes begin here."""
        holder = super().__new__(cls)
        holder.stored = {}
        return holder

    def __init__(self, *_: object) -> None:
        """Take whatever the foreign class's constructor was given."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.stored = state


def load_inert(path: Path) -> Any:
    """Load ``path`` with an ``Inert`` in the place of every object of a class; tensors are mapped from the file.

    Tensors saved from a GPU come to the CPU. What nobody looks at, such as an optimiser's state, is never read.

    Raises:
        UnsafeCheckpointError: If the file names anything that a DINO-WM checkpoint does not need. Nothing was run.
        CheckpointError: If the file is missing or damaged.
    """
    try:
        wanted = globals_in(_pickle_bytes(path))
    except UNREADABLE as error:
        raise CheckpointError(unreadable(path, error)) from error
    refused = sorted(name for name in wanted if not _is_allowed(name))
    if refused:
        raise UnsafeCheckpointError(
            f"{path} asks for {', '.join(refused)}, which no DINO-WM checkpoint needs; it was not loaded and nothing "
            "in it was run. Do not load it with another tool; get the checkpoint again from where it was published"
        )
    holders = [_holder(name) for name in wanted if not _is_torch(name)]
    try:
        # weights_only has a list of its own and rebuilds nothing that is not on it: a second, independent guard.
        with torch.serialization.safe_globals(holders):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UNREADABLE as error:
        raise CheckpointError(unreadable(path, error)) from error


def unreadable(path: Path, error: Exception) -> str:
    """The message for a file that turned out to be damaged."""
    if not path.is_file():
        return f"{path} does not exist or is not a file"
    return (
        f"{path} ({path.stat().st_size} bytes) is not a readable PyTorch checkpoint: {failure_reason(error)}. "
        "It may be incomplete; copy or download it again"
    )


def _pickle_bytes(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it is a zip archive without a data.pkl")
        return archive.read(names[0])


def _is_allowed(name: str) -> bool:
    module = name.rpartition(".")[0] + "."
    return _is_torch(name) or name in INERT_NAMES or module.startswith(INERT_PACKAGES)


def _is_torch(name: str) -> bool:
    """Whether torch's own loader rebuilds this, so no holder may take its place."""
    module, _, attribute = name.rpartition(".")
    return name in TORCH_NAMES or (module == "torch" and (attribute.endswith("Storage") or attribute in TORCH_DTYPES))


def _holder(name: str) -> Callable[..., Any] | tuple[Callable[..., Any], str]:
    if name == "collections.defaultdict":
        return _plain_dict, name
    return type("Inert", (Inert,), {"global_name": name}), name


def _plain_dict(*_: object) -> dict[Any, Any]:
    return {}
