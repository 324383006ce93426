"""What can be said of a pickle without loading it: the names it would import, why a loader refused it."""

from __future__ import annotations

import io
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator

UNKNOWN = "?"


def globals_in(pickled: bytes) -> set[str]:
    """Dotted names of all globals in a pickle, e.g. {"collections.OrderedDict", "posix.system"}.

    Protocols up to 3 name them outright. Protocol 4 takes the names from the stack, which is followed only roughly
    here: good for a message to a person, while what may be loaded has to be decided by the loader too.

    Raises:
        ValueError: If the bytes are not a complete pickle.
    """
    return {".".join(python3_name(module, name)) for module, name in _named(pickled)}


def failure_reason(error: Exception) -> str:
    """One line saying why a file could not be loaded.

    torch puts its reason behind the advice to switch its guard off, which nobody should follow.
    """
    lines = [line for line in str(error).rpartition("WeightsUnpickler error:")[2].splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Weights only load failed"):
        del lines[0]
    return lines[0].strip() if lines else type(error).__name__


def _named(pickled: bytes) -> Iterator[tuple[str, str]]:
    strings: list[str] = [UNKNOWN, UNKNOWN]  # pushed so far
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(io.BytesIO(pickled)):
        kind = opcode.name
        if kind in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            yield module, name
        elif kind == "STACK_GLOBAL":
            yield strings[-2], strings[-1]
        elif kind.startswith("EXT"):
            yield "copyreg", f"extension_{argument}"
        elif "UNICODE" in kind:
            strings.append(str(argument))
        elif kind == "MEMOIZE":
            memo[len(memo)] = strings[-1]
        elif kind.endswith("PUT"):
            memo[int(argument or 0)] = strings[-1]
        elif kind.endswith("GET"):
            strings.append(memo.get(int(argument or 0), UNKNOWN))


def python3_name(module: str, name: str) -> tuple[str, str]:
    """Protocol 2 and older write the module names of Python 2."""
    return NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
