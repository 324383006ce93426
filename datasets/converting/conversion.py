"""Converting a data set: some episodes at a time, resumable, and whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from datasets.collecting.locked_folder import locked
from datasets.converting.episode_targets import EpisodesTarget, PointMazeTarget, PushTTarget, WallTarget
from datasets.converting.hdf5_targets import Hdf5Target, RobomimicTarget
from datasets.converting.lance_target import LanceTarget
from datasets.converting.lerobot_target import LeRobotTarget
from datasets.converting.target import Outline, Target
from datasets.converting.zarr_target import ZarrTarget
from datasets.files import SETTINGS_FILE, DatasetError, dataset_error
from datasets.trajectories import Trajectories
from utils.files import sync_folder
from utils.links import refuse_links
from utils.machine import as_size, folder_bytes
from utils.nearby import nearest_names
from utils.retry import Retry

logger = logging.getLogger(__name__)

TARGETS: dict[str, type[Target]] = {
    "episodes": EpisodesTarget,
    "wall": WallTarget,
    **dict.fromkeys(("point_maze", "point_maze_medium", "point_maze_large"), PointMazeTarget),
    "pusht": PushTTarget,
    "zarr": ZarrTarget,
    "hdf5": Hdf5Target,
    "robomimic": RobomimicTarget,
    "lerobot": LeRobotTarget,
    "lance": LanceTarget,
}
"""What can be converted to, by the option of ``dataset`` that reads it."""
_WORK = ".unfinished"
_CONTENT = "content"
_CHUNK_BYTES = 2**26  # frames in memory


def check_target(to: str) -> None:
    """Refuse a format that nothing can be converted to.

    Raises:
        DatasetError: With the nearest names.
    """
    if to not in TARGETS:
        raise DatasetError(f"to={to}: there is no such format{nearest_names(to, TARGETS)}; {', '.join(TARGETS)}")


class Conversion:
    """A data set being written in another format.

    Everything is made in a folder beside its final place, ``<place>.unfinished``, and takes its name when it is whole.
    The settings are recorded there; the same conversion goes on where it stopped, another one is refused.

    Args:
        data: What is converted.
        to: One of ``TARGETS``.
        place: File or folder to be made; must not exist.
        images: How images are stored; None is the target's first way.
        fps: Frames per second, where the format says so.
        disk_patience_minutes: How long a disk that is full or away is waited for.

    Raises:
        DatasetError: If the format is not known or cannot hold the data.
    """

    def __init__(
        self,
        data: Trajectories,
        to: str,
        place: Path,
        images: str | None = None,
        fps: int = 10,
        disk_patience_minutes: float = 0.0,
    ) -> None:
        check_target(to)
        kind, self.place, self.to = TARGETS[to], place, to
        if images is not None and images not in kind.image_types:
            raise DatasetError(f"images={images}: with to={to} it is {' or '.join(kind.image_types)}")
        self.images = images or kind.image_types[0]
        self.data, self.fps = data, fps
        self.work = place.with_name(place.name + _WORK)
        validation = frozenset(data.train_val()[1].tolist())
        outline = Outline(data, self.images, fps, data.frames(0, [0])[0], validation)
        self.target = kind(self.work / _CONTENT / place.name, outline)
        self.retry = Retry(disk_patience_minutes, self.work / SETTINGS_FILE)

    def settings(self) -> dict[str, Any]:
        """Name all that the result depends on."""
        digest = hashlib.sha256(f"{self.data.name} {self.data.frame_size} {self.data.images}".encode())
        for number, length in enumerate(self.data.lengths.tolist()):
            for table in (self.data.states[number], self.data.actions[number], self.data.proprio(number)):
                digest.update(torch.as_tensor(table)[:length].contiguous().numpy().tobytes())
        return {
            "to": self.to,
            "images": self.images,
            "fps": self.fps,
            "the data that are converted": digest.hexdigest(),
        }

    def run(self) -> Path:
        """Write what is missing; returns the place.

        Raises:
            DatasetError: If the place is taken, another conversion was begun there, or the disk is too small.
            FolderInUseError: If another process writes there.
        """
        if self.place.exists():
            remedy = "Choose another data_path, or move it away."
            raise dataset_error(self.place, "nothing yet", "something that is there already", remedy)
        refuse_links(self.place)
        with locked(self.work, self.settings(), _CONTENT):
            done = self.target.done()
            self._check_space(done)
            self.target.begin()
            self._write(done)
            self.retry.write("the tables", self.target.finish)
            os.sync()  # the new name may not reach the disk before the files
            self.target.place.replace(self.place)
            sync_folder(self.place.parent)
        shutil.rmtree(self.work, ignore_errors=True)
        size = folder_bytes(self.place) if self.place.is_dir() else self.place.stat().st_size
        logger.info("%s: %d episodes, %s", self.place, len(self.data), as_size(size))
        return self.place

    def _write(self, done: int) -> None:
        frame_bytes, lengths = self.target.outline.frame_bytes, self.target.outline.lengths
        with tqdm(total=sum(lengths), initial=sum(lengths[:done]), unit="frame", desc=self.place.name) as bar:
            while done < len(lengths):
                numbers = range(done, self._end(done, lengths, _CHUNK_BYTES // frame_bytes))
                self.retry.write("episodes", lambda numbers=numbers: self.target.write(numbers))  # type: ignore[misc]
                done = numbers.stop
                self.target.record(done)
                bar.update(sum(lengths[numbers.start : done]))

    @staticmethod
    def _end(first: int, lengths: list[int], frames: int) -> int:
        """Number after the last of the episodes whose frames fit together."""
        end, total = first + 1, lengths[first]
        while end < len(lengths) and (total := total + lengths[end]) <= frames:
            end += 1
        return end

    def _check_space(self, done: int) -> None:
        lengths = self.target.outline.lengths
        needed = int(self.target.bytes_needed() * (1 - sum(lengths[:done]) / sum(lengths)))
        free = shutil.disk_usage(self.work).free
        if needed > free:
            remedy = "Free some, choose another data_path, or convert fewer with env.dataset.n_rollout."
            raise dataset_error(self.place, f"{as_size(needed)} of free disk space", as_size(free), remedy)
