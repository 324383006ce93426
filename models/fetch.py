"""Fetch a model from Hugging Face's hub: ``python -m models.fetch hf://owner/name[@revision][/file] [FOLDER]``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from models.foreign.layouts import recognise
from utils.model_hub import fetch_model
from utils.printable import exit_with, printable_logs, write_printable


def main() -> None:
    """Fetch, and say where it is and what it is; what goes wrong is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m models.fetch", description=__doc__)
    parser.add_argument("address", help="hf://owner/name, with @branch, @tag or @commit, and /file of several")
    parser.add_argument("folder", nargs="?", type=Path, help="where to (default: one of each commit below outputs/hub)")
    given = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    printable_logs()
    try:
        place = fetch_model(given.address, given.folder)
        found = recognise(place)
    except (OSError, ValueError) as error:
        exit_with(f"fetch: {error}")
    known = f"layout {found[0].name}" if found else "a layout that is not known here"
    write_printable(f"{place}: {known}\nlook into it: python -m models.checkpoint inspect {place}\n", sys.stdout)


if __name__ == "__main__":
    main()
