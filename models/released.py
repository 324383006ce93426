"""The released checkpoints by name: where they are, and what of an archive becomes a model directory."""

from __future__ import annotations

import logging
import re
import shutil
import sys
from pathlib import Path

from utils import google_drive
from utils.downloads import Expected, alone
from utils.fetching import Offer, fetch_archive, offer_of
from utils.files import atomic_path
from utils.http import DownloadError
from utils.links import refuse_links
from utils.osf import NOT_STATED, OsfFile
from utils.printable import write_printable
from utils.unpacking import Archive

log = logging.getLogger(__name__)

OUTPUTS = Path("outputs")
DOWNLOADS = OUTPUTS / "downloads"
FOLDERS = {"wall": "wall_single", "pusht": "pusht", "point_maze": "point_maze"}
BASES = OsfFile(name="outputs.zip", number="xvzs4", known=Expected(size=953_204_628), unpacked=0)
"""DINO-WM's models of all three environments."""
FINETUNED = {
    "wall.online": "12BXoo7WYJbhy976Ee_e43NiQfHBk82tT",
    "wall.adversarial": "1fWdI-dA1HOsPGg-CdQZPrXkSw8LoDELO",
    "pusht.online": "14rn3dD4ezLC4Qh5Xfwrlwe7_Wlxohecu",
    "pusht.adversarial": "1le0G8zJYRJTz-2lyOFtn6QhCqE6cuZwo",
    "point_maze.online": "1bpX5TaW4DhgfKDj7iwQ5r2fk4teVCUiW",
    "point_maze.adversarial": "1jB24wVsw7dRy9PwpV0DhzcWQNmXMLtsl",
}
"""Their ids on Google Drive."""
NAMES = (*(f"{env}.base" for env in FOLDERS), *FINETUNED)
CONFIG = "hydra.yaml"
WEIGHTS = re.compile(r"model_\w+\.(pth|safetensors)", re.ASCII)


def fetch_released(name: str, folder: Path | None = None, agreed: bool = False) -> Path:
    """Bring a released checkpoint to its place; returns its model directory.

    Args:
        name: One of ``NAMES``.
        folder: Where to; None is its usual place below ``outputs``.
        agreed: Whether nobody has to be asked any more.

    Raises:
        DownloadError: If the name is unknown, or it cannot be had.
        ArchiveError: If the archive is damaged, unsafe, or holds something else, or the disk is too small.
    """
    if name not in NAMES:
        raise DownloadError(f"{name} is neither hf://owner/name nor one of {', '.join(NAMES)}")
    env, _, kind = name.partition(".")
    place = folder or (OUTPUTS / FOLDERS[env] if kind == "base" else OUTPUTS / FOLDERS[env] / kind)
    with alone(place):
        if (place / CONFIG).exists():
            write_printable(f"{place} is there already\n", sys.stdout)
            return place
        if kind == "base":
            archive = DOWNLOADS / BASES.name
            fetch_archive(archive, lambda: offer_of(BASES), agreed)
        else:
            archive = DOWNLOADS / f"{name}.zip"
            number = FINETUNED[name]
            fetch_archive(archive, lambda: _on_drive(number), agreed, browser=google_drive.view(number))
        _place(archive, FOLDERS[env] if kind == "base" else kind, place)
    return place


def _on_drive(number: str) -> Offer:
    url, expected = google_drive.locate(number)
    return Offer(url=url, expected=expected, licence=NOT_STATED, headers=google_drive.HEADERS)


def _place(archive: Path, name: str, place: Path) -> None:
    """Make a model directory of what is in an archive; nobody has said whether that is a folder or bare weights."""
    with Archive(archive) as content:
        pickles = [file for file in content.files if file.name == "data.pkl" and len(file.parts) == 2]
        if pickles and not any(file.name == CONFIG for file in content.files):
            return _place_weights(archive, place)
        weights = [f for f in content.files if f.parent.name == "checkpoints" and WEIGHTS.fullmatch(f.name)]
        models = {file.parent.parent for file in weights if file.parent.parent / CONFIG in content.files}
        root = content.only_folder(models, name)
        chosen = {f"checkpoints/{file.name}": file for file in weights if file.parent.parent == root}
        content.unpack(chosen | {CONFIG: root / CONFIG}, place)  # last: with it the directory is complete


def _place_weights(archive: Path, place: Path) -> None:
    """Put a file that ``torch.save`` wrote, a zip archive as well, where a model directory has its weights."""
    weights = place / "checkpoints" / "model_latest.pth"
    if not weights.exists():
        refuse_links(weights, below=place)
        with atomic_path(weights) as temporary:
            shutil.copyfile(archive, temporary)
    log.warning(
        "%s holds weights alone: copy the %s of the base model, which was trained the same way, to %s",
        *(archive, CONFIG, place),
    )
