"""Loading a pickle of foreign objects without importing or running anything that it names."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from utils.printable import printable
from utils.reading.pickle_values import Inert, UnreadableStorage, is_key, make, make_set, python3_name
from utils.reading.tensor_record import TensorRecord

MAX_OPCODES = 300_000  # a checkpoint with optimisers has 20,000; this many take half a second and 120 MB at most
MAX_NAMES = 2_000  # different classes and functions; a checkpoint has 40
MAX_SHOWN = 8  # refused names in a message
MAX_NUMBER = 64  # bytes of an integer; each that is longer only costs time and memory

Names = Callable[[str, str], Any]
"""What stands in for a module's name: a class of ``Inert``, a function of ours, a type; None if it is not allowed."""


class ForeignNamesError(ValueError):
    """A pickle asks for classes or functions that its kind of file does not need; nothing was run.

    Attributes:
        names: The first of them, for messages.
    """

    def __init__(self, names: set[str]) -> None:
        shown = sorted(names)
        more = f" and {len(shown) - MAX_SHOWN} more" if len(shown) > MAX_SHOWN else ""
        self.names = ", ".join(shown[:MAX_SHOWN]) + more
        super().__init__(f"it asks for {self.names}")


class SafeUnpickler(pickle._Unpickler):
    """Builds containers, numbers, texts, ``TensorRecord`` and what ``names`` gives, and calls nothing else.

    Python's own unpickler rather than the one in C, which trusts the file with the size of its memo and with what it
    puts into dicts.

    Args:
        file: Holds the pickle.
        names: What it may ask for.
        strict: Refuse keys of dicts and sets that are neither short texts nor numbers, instead of leaving them out.

    Attributes:
        refused: Names in the file that are not allowed; a stand-in took their place.
        storages: By name, as the pickle describes them.
    """

    stack: list[Any]  # of the base class, like the next three
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: BinaryIO, names: Names, strict: bool = False) -> None:
        super().__init__(file)
        self.names, self.strict = names, strict
        self.dispatch = _Handlers()  # type: ignore[misc]  # counts for this file
        self.refused: set[str] = set()
        self.storages: dict[str, TensorRecord] = {}
        self._known: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands in for a name, whatever exists under it on this machine."""
        if (module, name) not in self._known:
            if len(self._known) == MAX_NAMES:
                raise pickle.UnpicklingError(f"it names more than {MAX_NAMES} classes")
            found = self.names(*python3_name(module, name))
            if found is None:
                self.refused.add(printable(".".join(part[:80] for part in python3_name(module, name))))
            self._known[module, name] = found or Inert
        return self._known[module, name]

    def persistent_load(self, pid: Any) -> TensorRecord | UnreadableStorage:
        """Describe a whole storage, flat: ``("storage", type, key, location, number of elements)``, of any location.

        Files of torch before 1.6 add what part of another storage it is; None, if of none.
        """
        if isinstance(pid, tuple) and len(pid) == 6 and pid[5] is None:
            pid = pid[:5]
        if not isinstance(pid, tuple) or len(pid) != 5 or not isinstance(pid[0], str) or pid[0] != "storage":
            raise pickle.UnpicklingError(f"something else takes the place of a storage ({type(pid).__name__})")
        _, dtype, key, _, numel = pid
        if isinstance(dtype, UnreadableStorage):
            return dtype
        record = TensorRecord(key, dtype, numel, 0, (numel,), (1,))
        if self.storages.setdefault(key, record) != record:
            raise pickle.UnpicklingError(f"data/{key} is described in two ways")
        return record

    def get_extension(self, code: int) -> None:
        """Refuse a name that is given by its number in a registry of the program that wrote the file."""
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
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], dict):  # a state dict's metadata are left out
            raise pickle.UnpicklingError(
                f"it sets attributes of something else than an object ({type(self.stack[-1]).__name__})"
            )

    def _fill(self, kind: type, items: list[Any]) -> None:
        """Put items into the container on the stack; those that stand in for one stay empty."""
        container = self.stack[-1]
        if kind is not list:
            self._check_keys(kind, items if kind is set else items[::2])
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

    def _check_keys(self, kind: type, keys: list[Any]) -> None:
        if self.strict and not all(map(is_key, keys)):
            raise pickle.UnpicklingError(f"a key of a {kind.__name__} is neither a short text nor a number")

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
        self._check_keys(frozenset, items)
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
    """Functions that do what each opcode says, until there were too many."""

    def __init__(self) -> None:
        own = {
            pickle.APPEND: SafeUnpickler._append,
            pickle.APPENDS: lambda self: self._fill(list, self.pop_mark()),
            pickle.ADDITEMS: lambda self: self._fill(set, self.pop_mark()),
            pickle.BUILD: SafeUnpickler._build,
            pickle.BYTEARRAY8: SafeUnpickler._bytearray8,
            pickle.DICT: SafeUnpickler._dict,
            pickle.FROZENSET: SafeUnpickler._frozenset,
            pickle.LONG4: SafeUnpickler._long4,
            pickle.NEWOBJ: SafeUnpickler._reduce,
            pickle.NEWOBJ_EX: SafeUnpickler._reduce_with_names,
            pickle.REDUCE: SafeUnpickler._reduce,
            pickle.SETITEM: SafeUnpickler._set_item,
            pickle.SETITEMS: lambda self: self._fill(dict, self.pop_mark()),
        }
        super().__init__({**SafeUnpickler.dispatch, **{opcode[0]: handler for opcode, handler in own.items()}})
        self.left = MAX_OPCODES

    def __getitem__(self, opcode: int) -> Callable[[Any], None]:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"it has more than {MAX_OPCODES} operations")
        return super().__getitem__(opcode)

    def __missing__(self, opcode: int) -> Callable[[Any], None]:
        raise pickle.UnpicklingError(f"{opcode:#x} is no operation of a pickle")


def load_pickle(
    file: BinaryIO, names: Names, strict: bool = False, storages: dict[str, TensorRecord] | None = None
) -> Any:
    """Load a pickle, with a ``TensorRecord`` for every tensor.

    Args:
        file: See ``SafeUnpickler``, like the next two.
        names: What it may ask for.
        strict: Refuse odd keys.
        storages: Gets all that the pickle speaks of.

    Raises:
        ForeignNamesError: If it asks for names that are not allowed. Nothing was run.
        Exception: Of any kind, if it is damaged, or does more than any real one.
    """
    unpickler = SafeUnpickler(file, names, strict)
    try:
        content = unpickler.load()
    except Exception:  # damaged bytes make anything of the unpickler
        if not unpickler.refused:
            raise
    if unpickler.refused:
        raise ForeignNamesError(unpickler.refused)
    if storages is not None:
        storages |= unpickler.storages
    return content
