"""Fetch a released data set of DINO-WM from OSF: ``python -m datasets.fetch wall_single``."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from datasets.files import DatasetError, dataset_root
from utils.downloads import Expected, alone
from utils.fetching import add_yes, fetch_archive, fetching, offer_of
from utils.machine import as_size
from utils.osf import OsfFile
from utils.printable import write_printable
from utils.unpacking import Archive


@dataclass(frozen=True)
class Released:
    """A data set that DINO-WM released.

    Attributes:
        file: The archive.
        table: A file of it that tells where in the archive it begins.
    """

    file: OsfFile
    table: str


DATASETS = {
    "wall_single": Released(
        OsfFile(name="wall_single.zip", number="49rnx", known=Expected(size=1_668_205_895), unpacked=55_000_000_000),
        "states.pth",
    ),
    "pusht_noise": Released(
        OsfFile(
            name="pusht_noise.zip",
            number="k2d8w",
            known=Expected(sha256="442f5dee246edf670964ed7bdecd248683cd6d00580fa0e4d458abb53f92da08"),
            unpacked=7_000_000_000,
        ),
        "train/states.pth",
    ),
    "point_maze": Released(
        OsfFile(name="point_maze.zip", number="vr5gy", known=Expected(), unpacked=29_000_000_000), "states.pth"
    ),
}
"""The released data sets, by their folders; sizes and a digest are those that people who fetched them report."""


def main() -> None:
    """Fetch, unpack, and say where it is; what goes wrong is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m datasets.fetch", description=__doc__)
    parser.add_argument("name", choices=DATASETS, help="which; it is unpacked into $DATASET_DIR/<name>")
    add_yes(parser)
    given = parser.parse_args()
    with fetching():
        folder = fetch_dataset(given.name, given.yes)
    write_printable(f"{folder}: read every frame with python -m doctor --data {folder}\n", sys.stdout)


def fetch_dataset(name: str, agreed: bool = False) -> Path:
    """Bring a data set to its place below ``$DATASET_DIR``; returns its folder.

    Args:
        name: One of ``DATASETS``.
        agreed: Whether nobody has to be asked any more.

    Raises:
        DatasetError: If ``DATASET_DIR`` names no folder, or something else is in the data set's place.
        DownloadError: If it cannot be had.
        ArchiveError: If the archive is damaged, unsafe, or holds something else, or the disk is too small.
    """
    released = DATASETS[name]
    folder = dataset_root() / name
    with alone(folder):
        if (folder / released.table).exists():
            write_printable(f"{folder} is there already\n", sys.stdout)
            return folder
        if folder.exists() and any(folder.iterdir()):
            raise DatasetError(f"{folder} is there without {released.table}: move it away, or finish what began it")
        archive = folder.with_name(released.file.name)
        fetch_archive(archive, lambda: offer_of(released.file), agreed, released.file.unpacked)
        _unpack(archive, released.table, folder)
    size = as_size(archive.stat().st_size)
    write_printable(f"{archive} is not needed any more: delete it to have {size} back\n", sys.stdout)
    return folder


def _unpack(archive: Path, table: str, folder: Path) -> None:
    """Unpack beside the final place, which the folder takes when it is complete."""
    unfinished = folder.with_name(folder.name + ".unpacking")
    with Archive(archive) as content:
        places = {place for file in content.files for place in file.parents if place / table in content.files}
        root = content.only_folder(places, folder.name)
        chosen = {str(file.relative_to(root)): file for file in content.files if root in file.parents}
        content.unpack(chosen, unfinished)
    os.sync()  # the folder's new name may not reach the disk before its files
    unfinished.replace(folder)


if __name__ == "__main__":
    main()
