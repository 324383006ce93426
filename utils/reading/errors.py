"""What damaged bytes make of the readers of zip, pickle and tensors."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib

from safetensors import SafetensorError

from utils.printable import printable

UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,  # a RecursionError, too
    SafetensorError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def failure_reason(error: Exception) -> str:
    """One line saying why a file could not be read."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return printable(lines[0].strip(), 300) if lines else type(error).__name__
