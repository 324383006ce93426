"""The layouts of other programs, recognised by what is in a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.foreign import hub, jepa_wms, stable_worldmodel, torch_world
from models.foreign.contents import Contents, read_contents, weights_in
from models.foreign.facts import Facts
from models.foreign.translation import Translation


@dataclass(frozen=True)
class Layout:
    """One program's way of keeping weights: whether a file has it, and what it is by our names."""

    name: str
    recognises: Callable[[Contents], bool]
    translate: Callable[[Contents, Facts], Translation]


LAYOUTS = [
    Layout(each.NAME, each.recognises, each.translate) for each in (hub, jepa_wms, stable_worldmodel, torch_world)
]


def recognise(path: Path) -> tuple[Layout, Contents] | None:
    """Find a file of another program at ``path``, or right in the folder ``path``, without reading its numbers.

    Model directories, which have a ``hydra.yaml`` and ``checkpoints/model_<epoch>``, are none.

    Raises:
        CheckpointError: If a folder holds several weights files, or the file is damaged or unsafe.
    """
    file = weights_in(path) if not (path / "hydra.yaml").exists() else None
    if file is None or (file.parent.name == "checkpoints" and file.name.startswith("model_")):
        return None
    contents = read_contents(file, with_numbers=False)
    layout = next((each for each in LAYOUTS if each.recognises(contents)), None)
    return None if layout is None else (layout, contents)


def translate(layout: Layout, contents: Contents, facts: Facts) -> Translation:
    """Read a recognised file and give what it holds our names.

    Raises:
        CheckpointError: If something has no counterpart here, or is neither said in the file nor known.
    """
    return layout.translate(read_contents(contents.path), facts)
