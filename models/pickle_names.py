"""The names that a checkpoint's pickle may contain, and what stands in for each of them."""

from __future__ import annotations

import pickle
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from models.torch_archive import TensorRecord

MAX_LENGTH = 200  # characters of a module, and of a name in it
MAX_KEY_LENGTH = 256
MAX_INT_KEY = 2**60  # below, different integers have different hashes, so that a dict cannot be made slow
CLASS = re.compile(r"_{0,2}[A-Z][A-Za-z0-9_]*", re.ASCII)
"""How classes are written. Functions, and what an attribute of a module leads to ("os.system"), look different."""
MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)

CLASSES_OF = (
    # the modules themselves
    "models.",
    "dinov2.layers.",
    "dinov2.models.",
    "timm.layers.",
    "timm.models.",
    "torch._dynamo.",
    "torch.nn.modules.",
    "torch.nn.parallel.",
    # optimisers
    "accelerate.",
    "apex.optimizers.",
    "bitsandbytes.optim.",
    "timm.optim.",
    "torch.amp.",
    "torch.cuda.amp.",
    "torch.optim.",
    # if a checkpoint was written in the middle of an epoch, the data that an optimiser hangs on to
    *(f"datasets.{name}_dset." for name in ("deformable_env", "point_maze", "pusht", "traj", "wall")),
    "omegaconf.",
    "torch.utils.data.",
    "torch.utils.hooks.",
    "torchvision.transforms.",
)
"""Packages whose classes may be named."""
DTYPES = {name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}
EXACT = {
    "_codecs.encode",
    *(f"builtins.{name}" for name in ("bool", "bytes", "complex", "dict", "float", "int", "list")),
    *(f"builtins.{name}" for name in ("object", "slice", "str", "tuple")),
    "collections.Counter",
    "contextlib.nullcontext",
    "functools.partial",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",  # its name in Python 3.13
    "torch.Tensor",
    "torch.device",
    *(f"torch.{name}" for name in DTYPES),
    *(f"torch.per_{kind}_affine" for kind in ("channel", "tensor")),
    "torch._C.Generator",
    "torch._TorchCompileWrapper",
    "torch._dynamo.backends.debugging.aot_eager",
    "torch._dynamo.backends.debugging.eager",
    "torch.distributed.algorithms.join._JoinConfig",  # of a DistributedDataParallel
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    *(f"torch.{amp}.grad_scaler._refresh_per_optimizer_state" for amp in ("amp", "cuda.amp")),
    *(f"torch.{amp}.autocast_mode.autocast" for amp in ("amp", "cuda.amp")),
    "torch.utils.data._utils.collate.default_collate",
    "typing.Any",
    # tensors other than plain ones: sparse, 8-bit floats and unsigned integers, without data, quantised, nested
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_meta_tensor_no_storage",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_nested_tensor",
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
    "QInt8Storage": torch.qint8,
    "QInt32Storage": torch.qint32,
    "QUInt8Storage": torch.quint8,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}


class Inert:
    """Stands in for an object of a foreign class: keeps what was stored of it and does nothing.

    Attributes:
        global_name: dotted name of the class in the file.
        arguments: what its constructor was given.
        stored: its attributes.
    """

    __slots__ = ("arguments", "stored")

    global_name = ""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments = arguments
        self.stored: dict[str, Any] = {}

    def restore(self, state: object) -> None:
        """Keep the attributes that a pickle gives to the object."""
        if isinstance(state, tuple) and len(state) == 2:  # of an object with __slots__; a module's lie in the first
            state = state[0] or state[1]
        if isinstance(state, dict):
            self.stored = state


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: object) -> TensorRecord:
    """``torch._utils._rebuild_tensor_v2``: a part of a storage."""
    if not isinstance(storage, TensorRecord):
        raise pickle.UnpicklingError(f"a tensor is a part of something else than a storage ({type(storage).__name__})")
    return TensorRecord(storage.key, storage.dtype, storage.numel, offset, shape, stride)


def _first(data: Any, *_: object) -> Any:
    """``torch._utils._rebuild_parameter``: the tensor inside; ``torch.Size``: the numbers."""
    return data


def _typed(function: Any, kind: object, arguments: Any, *_: object) -> Any:
    """``torch._tensor._rebuild_from_type_v2``: a tensor that attributes were set on."""
    return make(function, arguments) if function is not _typed else None


def _empty(*_: object) -> dict[Any, Any]:
    """``collections.defaultdict``, whose factory is left out."""
    return {}


def _ordered() -> OrderedDict[Any, Any]:
    return OrderedDict()


def make_set(items: list[Any] | tuple[()] = ()) -> set[Any]:
    """A set as protocols 2 and 3 write it, from a list made for it.

    The list is emptied: a file that makes many sets out of one long list is not worth the time.
    """
    if not isinstance(items, list) and items != ():
        raise pickle.UnpicklingError(f"a set is made from something else than a list ({type(items).__name__})")
    kept = {item for item in items if is_key(item)}
    if isinstance(items, list):
        items.clear()
    return kept


MADE_BY: dict[str, Callable[..., Any]] = {
    "builtins.frozenset": make_set,
    "builtins.set": make_set,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _empty,
    "torch.Size": _first,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
}
"""The functions that a pickle may call; every other name becomes an ``Inert`` class."""


def make(function: Any, arguments: Any) -> Any:
    """What a pickle gets for calling something: a stand-in, or the result of one of ``MADE_BY``.

    Raises:
        UnpicklingError: If it calls anything else.
    """
    if isinstance(arguments, tuple):
        if isinstance(function, type) and issubclass(function, Inert):
            return function(arguments)
        if isinstance(function, FunctionType) and len(arguments) <= 16:  # none get onto the stack but those
            return function(*arguments)
    raise pickle.UnpicklingError(
        f"it calls a function in a way that is not known ({type(function).__name__}, {type(arguments).__name__})"
    )


def is_key(value: object) -> bool:
    """Whether a dict or set keeps a value: short texts, numbers, and what stands in for an object.

    Nested tuples would take their hash through a deep recursion, or for ever if they share their parts. No name of a
    tensor is lost by leaving such entries out.
    """
    if isinstance(value, str):
        return len(value) <= MAX_KEY_LENGTH and value.isprintable()
    if isinstance(value, int):
        return abs(value) < MAX_INT_KEY
    return value is None or isinstance(value, float | Inert | TensorRecord | torch.dtype)


def stand_in(module: str, name: str) -> Any:
    """What takes the place of a class or function: one of ``MADE_BY``, a dtype (of a storage), or a class of ``Inert``.

    None for a name that no checkpoint needs.
    """
    wanted = f"{module[:MAX_LENGTH]}.{name[:MAX_LENGTH]}"
    if max(len(module), len(name)) >= MAX_LENGTH or "." in name:
        return None
    if wanted in MADE_BY:
        return MADE_BY[wanted]
    if module in ("torch", "torch.storage") and name in STORAGES:
        return STORAGES[name]
    is_class = f"{module}.".startswith(CLASSES_OF) and CLASS.fullmatch(name) and MODULE.fullmatch(module)
    return type("Inert", (Inert,), {"__slots__": (), "global_name": wanted}) if is_class or wanted in EXACT else None


def python3_name(module: str, name: str) -> tuple[str, str]:
    """Protocol 2 and older write the module names of Python 2."""
    return NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
