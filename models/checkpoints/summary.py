"""A summary of a checkpoint file, made without building the model or reading its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from models.checkpoints.config_file import read_model_config
from models.checkpoints.native import by_part
from models.checkpoints.own_file import open_own_file
from models.foreign import temporal_straightening
from models.foreign.contents import Contents
from models.foreign.dino_wm import NotDinoWM, read_pickled_index, read_state_dict_index
from models.foreign.dino_wm_config import translate_config
from models.foreign.dinov2_weights import resemblance
from models.foreign.facts import Facts
from models.foreign.layouts import Layout
from utils.files import sha256
from utils.moved_settings import current_tensor
from utils.reading.tensor_record import TensorRecord

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "BOOL": "bool"}
"""Names of types in a safetensors file, and in torch."""


@dataclass(frozen=True)
class Shape:
    """Shape and type of a tensor that nobody has read."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class PartSummary:
    """One network: the class that was pickled (None in a safetensors file), its tensors, which of them are buffers."""

    kind: str | None
    tensors: dict[str, Shape]
    buffers: set[str]

    def count(self, buffers: bool = False) -> int:
        """Numbers in its parameters, or in its buffers."""
        return sum(math.prod(t.shape) for name, t in self.tensors.items() if (name in self.buffers) == buffers)


@dataclass(frozen=True)
class Summary:
    """The answer of ``inspect``.

    Attributes:
        path: The file.
        layout: "DINO-WM pickle", "safetensors", "state dict", or the name of another program's.
        size: Bytes.
        sha256: Of the file.
        epoch: Training epochs behind it; None where the file does not say.
        parts: Name -> PartSummary.
        ignored: Entries that are not weights.
        about: What a file of ours says of itself.
        config: The architecture in the ``hydra.yaml`` beside it; of another program's file, what it is by our names.
        problem: Why the file cannot be used with that, or at all, or None.
    """

    path: Path
    layout: str
    size: int
    sha256: str
    epoch: int | None
    parts: dict[str, PartSummary]
    ignored: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] | None = None
    problem: str | None = None
    foreign: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        parts = {
            name: {
                "class": part.kind,
                "parameters": part.count(),
                "buffers": part.count(buffers=True),
                "tensors": {key: {"shape": list(t.shape), "dtype": t.dtype} for key, t in part.tensors.items()},
            }
            for name, part in self.parts.items()
        }
        names = ("layout", "size", "sha256", "epoch", "ignored", "about", "config", "problem")
        return {"path": str(self.path), **{name: getattr(self, name) for name in names}, "parts": parts}

    def as_text(self) -> str:
        """A page to read; tensors that repeat from layer to layer share a line."""
        facts = {
            "layout": f"{self.layout}, {self.size / 1e6:.1f} MB",
            "sha256": self.sha256,
            "epoch": self.epoch,
            "ignored": ", ".join(self.ignored),
            **{name: value for name, value in self.about.items() if isinstance(value, str | int) or value is None},
        }
        lines = [str(self.path), *(f"  {name:<16}{value}" for name, value in facts.items() if value not in ("", None))]
        for name, part in self.parts.items():
            buffers = part.count(buffers=True)
            also = f" + {buffers:,} in buffers" if buffers else ""
            lines += ["", f"{name}: {part.count():,} parameters{also}" + (f"  ({part.kind})" if part.kind else "")]
            lines += [f"  {line}" for line in _grouped(part.tensors)]
        lines += ["", f"total: {sum(part.count() for part in self.parts.values()):,} parameters", ""]
        if self.config is not None:
            source = "by our names:" if self.foreign else "hydra.yaml:"
            lines += [source, *(f"  {name:<20}{_short(value)}" for name, value in self.config.items())]
        lines += [f"PROBLEM: {self.problem}"] if self.problem else []
        return "\n".join(lines)


def summarise(path: Path) -> Summary:
    """Summarise a weights file of either layout, with the ``hydra.yaml`` of its model directory if it lies in one.

    Raises:
        CheckpointError: If the file is missing, unsafe, damaged or something else than a checkpoint.
    """
    summary = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    source = path.parent.parent / "hydra.yaml"
    if not source.is_file():
        return summary
    try:
        whole = read_model_config(source)
        if summary.layout == "safetensors":
            return replace(summary, config={k: v for k, v in whole.items() if not isinstance(v, Mapping | list)})
        shapes = {name: part.tensors for name, part in summary.parts.items()}
        return replace(summary, config=translate_config(whole, shapes, source))
    except ValueError as error:
        return replace(summary, problem=str(error))


def summarise_foreign(layout: Layout, contents: Contents, facts: Facts) -> Summary:
    """Summarise a file of another program, by its own names, and what becomes of it here."""
    shapes = {name: Shape(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in contents.tensors.items()}
    config, problem = None, None
    try:
        config = layout.translate(contents, facts).config
    except ValueError as error:
        problem = str(error)
    return Summary(
        path=contents.path,
        layout=layout.name,
        size=contents.path.stat().st_size,
        sha256=sha256(contents.path),
        epoch=contents.epoch or None,
        parts=_parts(shapes),
        ignored=contents.others,
        config=config,
        problem=problem,
        foreign=True,
    )


def _pickle(path: Path) -> Summary:
    size = path.stat().st_size if path.is_file() else 0
    try:
        index = read_pickled_index(path)
    except NotDinoWM:
        records = read_state_dict_index(path)
        if records is None:
            raise
        kind = resemblance(records)
        return Summary(
            path, "state dict", size, sha256(path), None, {"tensors": PartSummary(kind, _shapes(records), set())}
        )
    parts = {
        name: PartSummary(index.classes[name], _shapes(records), index.buffers[name])
        for name, records in index.parts.items()
    }
    names = (f"{part}.{name}" for part, records in index.parts.items() for name in records)
    straight = temporal_straightening.recognises(names)
    layout = f"{temporal_straightening.NAME}, a DINO-WM pickle" if straight else "DINO-WM pickle"
    return Summary(path, layout, size, sha256(path), index.epoch, parts, index.others)


def _shapes(records: Mapping[str, TensorRecord]) -> dict[str, Shape]:
    return {name: Shape(r.shape, str(r.dtype).removeprefix("torch.")) for name, r in records.items()}


def _safetensors(path: Path) -> Summary:
    with open_own_file(path) as (file, about):
        shapes = {
            current_tensor(name): Shape(shape, DTYPES.get(file.dtypes[name], file.dtypes[name]))
            for name, shape in sorted(file.shapes.items())
        }
    epoch = about.pop("epoch")
    return Summary(path, "safetensors", path.stat().st_size, sha256(path), epoch, _parts(shapes), about=about)


def _parts(shapes: Mapping[str, Shape]) -> dict[str, PartSummary]:
    """Summarise the networks of a file that names no classes."""
    return {name: PartSummary(None, tensors, set()) for name, tensors in by_part(shapes).items()}


def _grouped(tensors: Mapping[str, Shape]) -> list[str]:
    """One line per tensor; equal ones of numbered layers share a line: ``layers.{0..5}.norm.weight (404)``."""
    groups: dict[tuple[str, tuple[int, ...], str], list[str]] = {}
    for name, tensor in tensors.items():
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "#", name, count=1)
        groups.setdefault((pattern, tensor.shape, tensor.dtype), []).append(name)
    lines = []
    for (pattern, shape, dtype), names in groups.items():
        numbers = [match[0] for name in names if (match := re.search(r"(?<=\.)\d+(?=\.)", name))]
        shared = len(names) > 1
        label = pattern.replace("#", "{" + ",".join(numbers) + "}", 1) if shared else names[0]
        lines.append(f"{label} ({', '.join(map(str, shape))})" + (f" {dtype}" if dtype != "float32" else ""))
    return lines


def _short(value: Any) -> str:
    return ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
