"""``python -m experiments.page <study folder>``: make a study's ``report.html`` again."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from experiments.page.write import write_page
from launch.command_line import one_line


def main() -> None:
    """Write the page of the folder that the command names."""
    parser = argparse.ArgumentParser(prog="python -m experiments.page", description="Make a study's report.html again.")
    parser.add_argument("folder", type=Path, help="holds report.json")
    folder = parser.parse_args().folder
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with one_line():
        logging.info("page: %s", write_page(folder))


if __name__ == "__main__":
    main()
