"""Parts of a pickle when nothing that it names is imported: containers, texts, numbers and stand-ins."""

from __future__ import annotations

import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

from utils.reading.tensor_record import STORAGES, TensorRecord

MAX_KEY_LENGTH = 256
MAX_INT_KEY = 2**60  # below, different integers have different hashes, so that a dict cannot be made slow
MAX_ARGUMENTS = 16  # of a function


class Inert:
    """Stands in for an object of a foreign class: keeps what was stored of it and does nothing.

    Attributes:
        global_name: Dotted name of the class in the file.
        arguments: What its constructor was given.
        state: What the pickle gave to the object after it had made it.
    """

    __slots__ = ("arguments", "state")

    global_name = ""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments = arguments
        self.state: Any = None

    @property
    def stored(self) -> dict[str, Any]:
        """Attributes of the object."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:  # of an object with __slots__; a module's lie in the first
            state = state[0] or state[1]
        return state if isinstance(state, dict) else {}


def inert_class(name: str) -> type[Inert]:
    """Make a class of stand-ins for objects of the class ``name``."""
    return type("Inert", (Inert,), {"__slots__": (), "global_name": name})


class UnreadableStorage:
    """Stands in for a storage whose type torch cannot make a tensor of out of bytes."""

    def __init__(self, name: str) -> None:
        self.name = name


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: object) -> TensorRecord:
    """Do as ``torch._utils._rebuild_tensor_v2``: take a part of a storage."""
    if isinstance(storage, UnreadableStorage):
        raise pickle.UnpicklingError(f"a tensor lies in a torch.{storage.name}, a type of storage that cannot be read")
    if not isinstance(storage, TensorRecord):
        raise pickle.UnpicklingError(f"a tensor is a part of something else than a storage ({type(storage).__name__})")
    return TensorRecord(storage.key, storage.dtype, storage.numel, offset, shape, stride)


def _first(data: Any, *_: object) -> Any:
    """Do as ``torch._utils._rebuild_parameter``, for the tensor inside, and ``torch.Size``, for the numbers."""
    return data


def _typed(function: Any, kind: object, arguments: Any, *_: object) -> Any:
    """Do as ``torch._tensor._rebuild_from_type_v2``, for a tensor that attributes were set on."""
    return make(function, arguments) if function is not _typed else None


def _empty(*_: object) -> dict[Any, Any]:
    """Do as ``collections.defaultdict``, whose factory is left out."""
    return {}


def _ordered() -> OrderedDict[Any, Any]:
    return OrderedDict()


def make_set(items: list[Any] | tuple[()] = ()) -> set[Any]:
    """Make a set as protocols 2 and 3 write it, from a list made for it.

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
"""The functions that any pickle of torch may call, and what is called instead."""


def make(function: Any, arguments: Any) -> Any:
    """Call what a pickle calls: make a stand-in, or run one of our functions.

    Raises:
        UnpicklingError: If it calls anything else.
    """
    if isinstance(arguments, tuple):
        if isinstance(function, type) and issubclass(function, Inert):
            return function(arguments)
        if isinstance(function, FunctionType) and len(arguments) <= MAX_ARGUMENTS:  # none get onto the stack but ours
            return function(*arguments)
    raise pickle.UnpicklingError(
        f"it calls a function in a way that is not known ({type(function).__name__}, {type(arguments).__name__})"
    )


def is_key(value: object) -> bool:
    """Whether a dict or set keeps a value: short texts, numbers, and what stands in for an object.

    Nested tuples would take their hash through a deep recursion, or for ever if they share their parts; of tensors,
    many could be made with one hash. No name of a tensor is lost by leaving such entries out.
    """
    if isinstance(value, str):
        return len(value) <= MAX_KEY_LENGTH and value.isprintable()
    if isinstance(value, int):
        return abs(value) < MAX_INT_KEY
    return value is None or isinstance(value, float | Inert | torch.dtype)


def storage_type(module: str, name: str) -> torch.dtype | UnreadableStorage | None:
    """Return the type of a storage's elements, by the storage's name; None if that names something else."""
    if module not in ("torch", "torch.storage") or not name.endswith("Storage") or not name.isidentifier():
        return None
    return STORAGES.get(name) or UnreadableStorage(name[:80])


def python3_name(module: str, name: str) -> tuple[str, str]:
    """Translate the names of Python 2, which protocol 2 and older write."""
    return NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
