"""Fetch a model: ``python -m models.fetch wall.online``, or one of a hub, ``hf://owner/name[@revision][/file]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.foreign.layouts import recognise
from models.released import NAMES, fetch_released
from utils.fetching import add_yes, fetching
from utils.model_hub import SCHEME, fetch_model
from utils.printable import write_printable


def main() -> None:
    """Fetch, and say where it is and what it is; what goes wrong is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m models.fetch", description=__doc__)
    about = f"{', '.join(NAMES)}; or hf://owner/name, with @branch, @tag or @commit, and /file of several"
    parser.add_argument("address", help=about)
    where = "where to (default: the place in docs/checkpoints.md; of a hub, one of each commit below outputs/hub)"
    parser.add_argument("folder", nargs="?", type=Path, help=where)
    add_yes(parser)
    given = parser.parse_args()
    with fetching():
        place, known = _fetch(given.address, given.folder, given.yes)
    write_printable(f"{place}: {known}\nlook into it: python -m models.checkpoint inspect {place}\n", sys.stdout)


def _fetch(address: str, folder: Path | None, agreed: bool) -> tuple[Path, str]:
    if not address.startswith(SCHEME):
        return fetch_released(address, folder, agreed), "a released model"
    place = fetch_model(address, folder)
    found = recognise(place)
    return place, f"layout {found[0].name}" if found else "a layout that is not known here"


if __name__ == "__main__":
    main()
