"""Reader of the ``.wandb`` files in which Weights & Biases keeps a run on this machine."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.reading.opening import open_regular

HEADER = 7  # bytes: ":W&B", a magic number, a version; and those of each chunk: checksum, length, kind
BLOCK = 32768  # bytes; no chunk crosses a border of these
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4  # kinds of chunks: a whole record, or its parts


def read_records(path: Path) -> Iterator[Any]:
    """Yield the records (``wandb_internal_pb2.Record``) of a file, up to where a kill cut it off.

    Source: LevelDB's log format, which wandb writes; the packages of today bring no reader of it for Python.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # made when it is imported

    with open_regular(path) as file:
        data, at, parts = file.read(), HEADER, bytearray()
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # too little room for a chunk, filled with zeros
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        if not FULL <= kind <= LAST or at + HEADER + length > len(data):
            return
        if kind in (FULL, FIRST):
            parts.clear()
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            yield Record.FromString(bytes(parts))
            parts.clear()


def history(record: Any) -> dict[str, Any] | None:
    """Return what one call of ``log`` has said, ``_step`` among it; None for records of another kind."""
    if record.WhichOneof("record_type") != "history":
        return None
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}


def next_step(folders: list[Path]) -> int:
    """Return one more than the last step in the files of these folders; 0 if there is none."""
    lines = (history(record) for folder in folders for path in folder.glob("*.wandb") for record in read_records(path))
    return max((int(line["_step"]) + 1 for line in lines if line is not None), default=0)
