"""Loading a torch pickle of foreign objects without importing or running anything that it names."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from models.pickle_scan import failure_reason, globals_in, python3_name
from models.torch_archive import TensorRecord, TorchArchive

INERT_PACKAGES = (
    # the modules themselves
    "models.",
    "dinov2.",
    "torch.nn.modules.",
    "torch.nn.parallel.",
    # optimisers and, if a checkpoint was written in the middle of an epoch, the data they hang on to; all ignored
    "accelerate.",
    "apex.",
    "bitsandbytes.",
    "datasets.",
    "numpy.",
    "omegaconf.",
    "timm.",
    "torch._dynamo.",
    "torch.amp.",
    "torch.cuda.amp.",
    "torch.distributed.",
    "torch.optim.",
    "torch.utils.data.",
    "torch.utils.hooks.",
    "torchvision.transforms.",
    "wandb.",
)
DTYPES = {name: getattr(torch, name) for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}
INERT_NAMES = {
    "_codecs.encode",
    *(f"builtins.{name}" for name in ("bool", "bytes", "float", "int", "object", "slice", "str")),
    "collections.Counter",
    "contextlib.nullcontext",
    "functools.partial",
    "pathlib.PosixPath",
    "torch.Tensor",
    "torch.device",
    "torch._C.Generator",
    "torch._TorchCompileInductorWrapper",
    "torch._TorchCompileWrapper",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    "typing.Any",
    *(f"torch.{name}" for name in DTYPES),
}
STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}
UNREADABLE = (  # what damaged bytes make of the readers of zip, pickle and tensors
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class CheckpointError(ValueError):
    """A file is not a DINO-WM checkpoint, or a damaged one."""


class UnsafeCheckpointError(CheckpointError):
    """A file asks for code that no DINO-WM checkpoint needs."""


class Inert:
    """Stands in for an object of a foreign class: keeps what was stored of it and does nothing.

    Attributes:
        global_name: dotted name of the class in the file.
        arguments: what its constructor was given.
        stored: its attributes.
    """

    global_name = ""
    arguments: tuple[object, ...]
    stored: dict[str, Any]

    def __new__(cls, *arguments: object, **_: object) -> Inert:
        """Pickles make objects with or without ``__init__``, so the attributes begin here."""
        holder = super().__new__(cls)
        holder.arguments = arguments
        holder.stored = {}
        return holder

    def __init__(self, *_: object, **__: object) -> None:
        """Everything was kept when the object was made."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):  # an object with __slots__
            state = {**(state[0] if isinstance(state[0], dict) else {}), **state[1]}
        if isinstance(state, dict):
            self.stored = state

    def __setitem__(self, key: object, value: object) -> None:
        """Foreign containers stay empty."""

    def append(self, item: object) -> None:
        """Foreign containers stay empty."""

    def extend(self, items: object) -> None:
        """Foreign containers stay empty."""

    def add(self, item: object) -> None:
        """Foreign containers stay empty."""


class _Rebuild:
    """A function that the pickle may call; without a ``__dict__``, so that it cannot set anything on it."""

    __slots__ = ()


class _Tensor(_Rebuild):
    __slots__ = ()

    def __call__(self, storage: TensorRecord, offset: int, shape: Any, stride: Any, *_: object) -> TensorRecord:
        """``torch._utils._rebuild_tensor_v2``: a part of a storage."""
        sizes = (tuple(map(int, shape)), tuple(map(int, stride)))
        return TensorRecord(storage.key, storage.dtype, storage.numel, int(offset), *sizes)


class _First(_Rebuild):
    __slots__ = ()

    def __call__(self, data: Any, *_: object) -> Any:
        """``torch._utils._rebuild_parameter``: the tensor inside; ``torch.Size``: the numbers."""
        return data


class _Typed(_Rebuild):
    __slots__ = ()

    def __call__(self, function: Any, kind: object, arguments: Any, *_: object) -> Any:
        """``torch._tensor._rebuild_from_type_v2``: a tensor that attributes were set on."""
        if not (isinstance(function, _Rebuild) and callable(function)):
            raise pickle.UnpicklingError(f"a tensor is to be rebuilt by {function!r}")
        return function(*arguments)


class _Empty(_Rebuild):
    __slots__ = ()

    def __call__(self, *_: object) -> dict[Any, Any]:
        """``collections.defaultdict``: its factory is left out."""
        return {}


PLAIN = {
    "builtins.complex": complex,
    "builtins.dict": dict,
    "builtins.frozenset": frozenset,
    "builtins.list": list,
    "builtins.set": set,
    "builtins.tuple": tuple,
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": _Empty(),
    "torch.Size": _First(),
    "torch._tensor._rebuild_from_type_v2": _Typed(),
    "torch._utils._rebuild_parameter": _First(),
    "torch._utils._rebuild_parameter_with_state": _First(),
    "torch._utils._rebuild_tensor": _Tensor(),
    "torch._utils._rebuild_tensor_v2": _Tensor(),
}
"""What the names in a pickle become, if not an ``Inert`` class."""


class InertUnpickler(pickle.Unpickler):
    """Builds containers, numbers, texts, ``TensorRecord`` and ``Inert``, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name of the allow-list.

        Raises:
            UnsafeCheckpointError: For every other name, whatever exists under it on this machine.
        """
        module, name = python3_name(module, name)
        wanted = f"{module}.{name}"
        if wanted in PLAIN:
            return PLAIN[wanted]
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        if not is_allowed(wanted):
            raise UnsafeCheckpointError(wanted)
        return type("Inert", (Inert,), {"global_name": wanted})

    def persistent_load(self, pid: Any) -> TensorRecord:
        """A whole storage, flat: ``("storage", type, key, location, number of elements)``; the location is ignored."""
        kind, dtype, key, _, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError(f"{pid!r} is no storage")
        return TensorRecord(key, dtype, int(numel), 0, (int(numel),), (1,))


def is_allowed(wanted: str) -> bool:
    """Whether a dotted name may stand in a checkpoint."""
    module, _, name = wanted.rpartition(".")
    known = wanted in PLAIN or wanted in INERT_NAMES or (module in ("torch", "torch.storage") and name in STORAGES)
    return known or f"{module}.".startswith(INERT_PACKAGES)


def load_inert(archive: TorchArchive, path: Path) -> Any:
    """The content of an archive, with an ``Inert`` for every object and a ``TensorRecord`` for every tensor.

    No tensor is read. Where a tensor was saved from (a GPU, say) does not matter.

    Raises:
        UnsafeCheckpointError: If the pickle names anything that a DINO-WM checkpoint does not need. Nothing was run.
        One of ``UNREADABLE``: If it is damaged.
    """
    refused = sorted(name for name in globals_in(archive.pickled) if not is_allowed(name))
    if not refused:  # the scan follows the pickle roughly, to name all at once; this decides
        try:
            return InertUnpickler(io.BytesIO(archive.pickled)).load()
        except UnsafeCheckpointError as error:
            refused = [str(error)]
    raise UnsafeCheckpointError(
        f"{path} asks for {', '.join(refused)}, which no DINO-WM checkpoint needs; it was not loaded and nothing "
        "in it was run. Do not load it with another tool; get the checkpoint again from where it was published"
    )


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
