"""Collecting a data set: in parallel, in any format that has a writer, and resumable after any interruption."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from datasets.collecting.locked_folder import locked
from datasets.collecting.recording import record
from datasets.collecting.workers import run_in_processes
from datasets.files import SETTINGS_FILE, dataset_error, load_tensor
from datasets.formats.episode_files import episode_name
from datasets.formats.tables import LAYOUT_TABLE
from datasets.writer import Writer
from envs.base import VectorEnv
from envs.expert import Expert
from envs.factors import chosen_factors, factor_names, usual_values
from utils.files import remove_unfinished
from utils.machine import as_size, available_cores, folder_bytes
from utils.reading.torch_file import read_torch
from utils.retry import Retry
from utils.tensor_files import tensor_bytes, write_torch

logger = logging.getLogger(__name__)

_EPISODES = "obses"
_PARTS = "parts"
_AGAIN = "delete it, and its trajectories are simulated again"
_CHUNK_BYTES = 256 * 2**20  # frames a worker holds at once
_MAX_CHUNK = 64
_WORKER_BYTES = 2**30  # made in about the time that a worker process takes to start


class Collection:
    """A data set being made by an expert, one image file per trajectory and a few tables.

    Trajectories are simulated in fixed chunks, each from generators of its own, so that the result depends neither on
    the number of workers nor on interruptions. Every file is written whole or not at all. The settings are recorded
    first; a later run with the same settings keeps what is finished, one with other settings is refused.

    Args:
        expert: Where episodes start and what is done in them.
        make_env: Called with an image size, makes the environment, in the process that plays.
        writer: Of the format.
        folder: Where the data set lies; made if it does not exist.
        n_rollout: Number of trajectories; None takes all that the expert has, or as many as were released.
        num_steps: Raw steps of a trajectory; None takes those of the expert's longest, or as many as were released.
        image_size: Side of the images, pixels.
        image_dtype: How images are stored, one of ``writer.image_types``; None is as released.
        seed: Of the data set.
        chunk_size: Trajectories simulated together; None fits their frames into 256 MiB.
        vary: Factors by which the world of every trajectory differs.
        subset: Which of ``writer.subsets`` this is; "" if there are none.
        disk_patience_minutes: How long a disk that is full or away is waited for.

    Raises:
        ValueError: If a number is not positive or the type is unknown.
    """

    def __init__(
        self,
        expert: Expert,
        make_env: Callable[[int], VectorEnv],
        writer: Writer,
        folder: str | Path,
        n_rollout: int | None = None,
        num_steps: int | None = None,
        image_size: int = 224,
        image_dtype: str | None = None,
        seed: int = 0,
        chunk_size: int | None = None,
        disk_patience_minutes: float = 0.0,
        subset: str = "",
        vary: str | Sequence[str] = (),
    ) -> None:
        chosen = writer.image_types[0] if image_dtype is None else image_dtype
        if chosen not in writer.image_types:
            raise ValueError(f"image_dtype must be one of {', '.join(writer.image_types)}, got {image_dtype!r}")
        self.expert = expert.of_subset(subset) if subset else expert
        self.make_env = make_env
        self.vary = factor_names(vary)
        self.writer = writer
        self.stream = [*writer.subsets].index(subset) if subset else 0
        self.folder = Path(folder).expanduser()
        released, most = writer.subsets.get(subset, writer.default_trajectories), self.expert.most_episodes
        self.n_rollout = (most or released) if n_rollout is None else n_rollout
        self.num_steps = (self.expert.most_steps or writer.default_steps) if num_steps is None else num_steps
        self.image_size = image_size
        self.image_dtype = chosen
        self.store = writer.store(chosen)
        self.seed = seed
        for name in ("n_rollout", "num_steps", "image_size", "seed"):
            _check_whole(name, getattr(self, name), 0 if name == "seed" else 1)
        if most is not None and self.n_rollout > most:
            key = "n_val" if subset == "val" else "n_rollout"
            raise ValueError(f"{key}={self.n_rollout}: there are {most} different trajectories; leave it null for all")
        self.store.check_size(image_size)
        self.retry = Retry(disk_patience_minutes, self.folder / SETTINGS_FILE)
        self.num_frames = self.num_steps + writer.frames_after_last
        self.frame_bytes = (self.num_steps + 1) * 3 * image_size**2 * self.store.dtype.itemsize  # in memory
        fitting = min(_MAX_CHUNK, max(1, _CHUNK_BYTES // self.frame_bytes))
        self.chunk_size = fitting if chunk_size is None else chunk_size
        _check_whole("chunk_size", self.chunk_size, 1)

    def settings(self) -> dict[str, Any]:
        """Name all that the files depend on as the user sets it."""
        names = ("n_rollout", "num_steps", "image_size", "image_dtype", "seed", "chunk_size")
        options = self.expert.settings() | ({"stream": self.stream} if self.writer.subsets else {})
        general = {name: getattr(self, name) for name in names}
        # "behaviour" was the word for an expert when the first of these files was written
        about = {"format": 1, "behaviour": type(self.expert).__name__} | ({"vary": self.vary} if self.vary else {})
        return about | general | {f"env.collector.{name}": value for name, value in options.items()}

    def run(self, num_workers: int | None = None) -> Path:
        """Make what is missing; returns the folder.

        Args:
            num_workers: Processes; None takes one per core and gigabyte to be made, since a process needs seconds to
                start. With more than one, a script that calls this needs the usual ``if __name__ == "__main__"``.

        Raises:
            DatasetError: If the folder holds something else, or the disk is too small.
            FolderInUseError: If another process is collecting into it.
            WorkerError: If a worker failed; finished files are kept.
        """
        if num_workers is not None:
            _check_whole("num_workers", num_workers, 1)
        with locked(self.folder, self.settings(), _EPISODES):
            (self.folder / _PARTS).mkdir(exist_ok=True)
            self._remove_temporaries()
            finished = self._finished_episodes()
            chunks = [chunk for chunk in range(self._num_chunks) if not self._chunk_done(chunk, finished)]
            missing = self.n_rollout - len(finished)
            self._check_space(missing)
            worth_starting = math.ceil(missing * self.frame_bytes / _WORKER_BYTES)
            workers = max(1, min(num_workers or min(available_cores(), worth_starting), len(chunks)))
            bar = tqdm(total=self.n_rollout, initial=len(finished), unit="trajectory", desc=str(self.folder))
            try:
                with bar, closing(run_in_processes(self._collect_chunk, chunks, workers)) as progress:
                    for done in progress:
                        bar.update(done)
            finally:
                self._remove_temporaries()
            self._write_tables()
        self._report(len(finished))
        return self.folder

    @property
    def _num_chunks(self) -> int:
        return math.ceil(self.n_rollout / self.chunk_size)

    def _numbers(self, chunk: int) -> range:
        return range(chunk * self.chunk_size, min((chunk + 1) * self.chunk_size, self.n_rollout))

    def _episode(self, number: int) -> Path:
        return self.folder / _EPISODES / episode_name(number, self.store.suffix)

    def _part(self, chunk: int) -> Path:
        return self.folder / _PARTS / f"chunk_{chunk:05d}.pth"

    @property
    def _tables_done(self) -> bool:
        return (self.folder / "states.pth").exists()  # written last

    def _finished_episodes(self) -> set[int]:
        return {number for number in range(self.n_rollout) if self._is_finished(number)}

    def _is_finished(self, number: int) -> bool:
        return self.store.is_whole(self._episode(number), self.num_frames, self.image_size)

    def _chunk_done(self, chunk: int, finished: set[int]) -> bool:
        return finished.issuperset(self._numbers(chunk)) and (self._tables_done or self._part(chunk).exists())

    def _collect_chunk(self, chunk: int) -> Iterator[int]:
        """Simulate a whole chunk and write what is missing of it, its rows of the tables last."""
        numbers = self._numbers(chunk)
        env = self.make_env(self.image_size)
        after_last = self.writer.frames_after_last
        try:
            factors = chosen_factors(env.factors, self.vary, env.name)
            about = (self.seed, numbers, self.num_steps, self.store.dtype, self.stream, after_last)
            recording = record(env, self.expert, *about, factors=factors)
        finally:
            env.close()
        assert recording.frames is not None
        shown = (recording.lengths + after_last).tolist()
        for number, frames, count in zip(numbers, recording.frames, shown, strict=True):
            if not self._is_finished(number):
                write = functools.partial(self.store.write, self._episode(number), frames[:count])
                self.retry.write("a trajectory", write, self.store.bytes_needed(count, self.image_size))
                yield 1
        layouts = {f"{LAYOUT_TABLE}{key}": recording.layouts[key] for key in usual_values(factors)}
        tables = self.writer.tables(recording) | layouts
        rows = {name: table.contiguous().clone() for name, table in tables.items()}
        write_torch(self._part(chunk), rows, self.retry)

    def _write_tables(self) -> None:
        """Join the parts; ``states.pth`` comes last, so that a data set that has it is complete."""
        if not self._tables_done:
            parts = [read_torch(self._part(chunk), _AGAIN) for chunk in range(self._num_chunks)]
            for name in sorted(parts[0], key=lambda name: name == "states"):
                table = torch.cat([part[name] for part in parts])
                write = functools.partial(self.writer.write_table, self.folder, name, table)
                self.retry.write(f"the table of {name}", write, tensor_bytes(table))
        for chunk in range(self._num_chunks):
            self._part(chunk).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something that is not ours is in it
            (self.folder / _PARTS).rmdir()

    def _remove_temporaries(self) -> None:
        for place in (self.folder, self.folder / _EPISODES, self.folder / _PARTS):
            remove_unfinished(place)

    def _check_space(self, missing: int) -> None:
        each = self.store.bytes_needed(self.num_frames, self.image_size)
        needed = missing * each + self.n_rollout * self.num_steps * 128
        free = shutil.disk_usage(self.folder).free
        if missing and needed > free:
            remedy = "Free some, choose another data_path, or lower n_rollout or image_size, or use image_dtype=uint8."
            raise dataset_error(self.folder, f"{as_size(needed)} of free disk space", as_size(free), remedy)

    def _report(self, kept: int) -> None:
        states = load_tensor(self.folder / "states.pth")
        logger.info(
            "%s: %d trajectories of %d steps, images %s %dx%d, %s (%d trajectories were there already)",
            *(self.folder, *states.shape[:2], self.image_dtype, self.image_size, self.image_size),
            *(as_size(folder_bytes(self.folder)), kept),
        )


def _check_whole(name: str, value: object, lowest: int) -> None:
    if not isinstance(value, int) or value < lowest:
        raise ValueError(f"{name} must be a whole number, at least {lowest}, got {value!r}")
