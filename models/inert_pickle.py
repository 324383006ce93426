"""Loading a torch pickle of foreign objects without importing or running anything that it names."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.pickle_names import Inert, is_key, make, make_set, python3_name, stand_in
from models.torch_archive import UNREADABLE, TensorRecord, TorchArchive, printable

MAX_OPCODES = 2_000_000  # a checkpoint with optimisers has 20,000; this many take seconds and some 100 MB
MAX_NAMES = 10_000  # different classes and functions; a checkpoint has 40
MAX_SHOWN = 8  # refused names in a message
MAX_NUMBER = 64  # bytes of an integer; each that is longer only costs time and memory


class CheckpointError(ValueError):
    """A file is not a DINO-WM checkpoint, or a damaged one."""


class UnsafeCheckpointError(CheckpointError):
    """A file asks for code that no DINO-WM checkpoint needs."""


class InertUnpickler(pickle._Unpickler):
    """Builds containers, numbers, texts, ``TensorRecord`` and ``Inert``, and calls nothing else.

    Python's own unpickler rather than the one in C, which trusts the file with the size of its memo and with what it
    puts into dicts.

    Attributes:
        refused: names in the file that no checkpoint needs; a stand-in took their place.
    """

    stack: list[Any]  # of the base class, like the next three
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))
        self.dispatch = _Handlers()  # type: ignore[misc]  # counts for this file
        self.refused: set[str] = set()
        self._known: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name, whatever exists under it on this machine."""
        if (module, name) not in self._known:
            if len(self._known) == MAX_NAMES:
                raise pickle.UnpicklingError(f"it names more than {MAX_NAMES} classes")
            found = stand_in(*python3_name(module, name))
            if found is None:
                self.refused.add(printable(".".join(part[:80] for part in python3_name(module, name))))
            self._known[module, name] = found or Inert
        return self._known[module, name]

    def persistent_load(self, pid: Any) -> TensorRecord:
        """A whole storage, flat: ``("storage", type, key, location, number of elements)``; the location is ignored."""
        if not isinstance(pid, tuple) or len(pid) != 5 or not isinstance(pid[0], str) or pid[0] != "storage":
            raise pickle.UnpicklingError(f"something else takes the place of a storage ({type(pid).__name__})")
        _, dtype, key, _, numel = pid
        return TensorRecord(key, dtype, numel, 0, (numel,), (1,))

    def get_extension(self, code: int) -> None:
        """A name by its number in a registry of the program that wrote the file."""
        self.append(self.find_class("copyreg", f"extension_{code}"))

    def _instantiate(self, function: Any, arguments: list[Any]) -> None:
        self.append(make(function, tuple(arguments)))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.append(make(self.stack.pop(), arguments))

    def _reduce_with_names(self) -> None:
        self.stack.pop()
        self._reduce()

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].restore(state)
        elif not isinstance(self.stack[-1], dict):  # a state dict's metadata are left out
            raise pickle.UnpicklingError(
                f"it sets attributes of something else than an object ({type(self.stack[-1]).__name__})"
            )

    def _fill(self, kind: type, items: list[Any]) -> None:
        """Put items into the container on the stack; those that stand in for one stay empty."""
        container = self.stack[-1]
        if isinstance(container, dict) and kind is dict:
            container.update((k, v) for k, v in zip(items[::2], items[1::2], strict=True) if is_key(k))
        elif isinstance(container, list) and kind is list:
            container.extend(items)
        elif isinstance(container, set) and kind is set:
            container.update(filter(is_key, items))
        elif not isinstance(container, Inert):
            raise pickle.UnpicklingError(
                f"it adds items of a {kind.__name__} to something else ({type(container).__name__})"
            )

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill(dict, [key, value])

    def _append(self) -> None:
        value = self.stack.pop()
        self._fill(list, [value])

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._fill(dict, items)

    def _frozenset(self) -> None:
        items = self.pop_mark()  # which changes where ``append`` leads
        self.append(make_set(items))

    def _long4(self) -> None:
        (size,) = struct.unpack("<i", self.read(4))
        if not 0 <= size <= MAX_NUMBER:
            raise pickle.UnpicklingError(f"it has a number of {size} bytes")
        self.append(pickle.decode_long(self.read(size)))

    def _bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))  # no more than there is


class _Handlers(dict[int, Callable[[Any], None]]):
    """What each opcode does, until there were too many."""

    def __init__(self) -> None:
        own = {
            pickle.APPEND: InertUnpickler._append,
            pickle.APPENDS: lambda self: self._fill(list, self.pop_mark()),
            pickle.ADDITEMS: lambda self: self._fill(set, self.pop_mark()),
            pickle.BUILD: InertUnpickler._build,
            pickle.BYTEARRAY8: InertUnpickler._bytearray8,
            pickle.DICT: InertUnpickler._dict,
            pickle.FROZENSET: InertUnpickler._frozenset,
            pickle.LONG4: InertUnpickler._long4,
            pickle.NEWOBJ: InertUnpickler._reduce,
            pickle.NEWOBJ_EX: InertUnpickler._reduce_with_names,
            pickle.REDUCE: InertUnpickler._reduce,
            pickle.SETITEM: InertUnpickler._set_item,
            pickle.SETITEMS: lambda self: self._fill(dict, self.pop_mark()),
        }
        super().__init__({**InertUnpickler.dispatch, **{opcode[0]: handler for opcode, handler in own.items()}})
        self.left = MAX_OPCODES

    def __getitem__(self, opcode: int) -> Callable[[Any], None]:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"it has more than {MAX_OPCODES} operations")
        return super().__getitem__(opcode)

    def __missing__(self, opcode: int) -> Callable[[Any], None]:
        raise pickle.UnpicklingError(f"{opcode:#x} is no operation of a pickle")


def load_inert(archive: TorchArchive, path: Path) -> Any:
    """The content of an archive, with an ``Inert`` for every object and a ``TensorRecord`` for every tensor.

    No tensor is read. Where a tensor was saved from (a GPU, say) does not matter.

    Raises:
        UnsafeCheckpointError: If the pickle names anything that a DINO-WM checkpoint does not need. Nothing was run.
        One of ``UNREADABLE``: If it is damaged.
    """
    unpickler = InertUnpickler(archive.pickled)
    try:
        content = unpickler.load()
    except UNREADABLE:
        if not unpickler.refused:
            raise
    if unpickler.refused:
        names = sorted(unpickler.refused)
        more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
        raise UnsafeCheckpointError(
            f"{path} asks for {', '.join(names[:MAX_SHOWN])}{more}, which no DINO-WM checkpoint needs; it was not "
            "loaded and nothing in it was run. Do not load it with another tool; get the checkpoint again from where "
            "it was published"
        )
    return content
