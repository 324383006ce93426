"""Frames of a finished evaluation for people to look at: what the simulator showed, and what the model had imagined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import utils.runtime as runtime
from models.latent import cat_latents
from planning.diagnose import read_identity, settings_of, subject_of
from planning.diagnosis.subject import Subject
from planning.episode_record import EPISODES
from utils.files import sha256, write_file, write_json
from utils.pictures import to_uint8
from utils.reading.json_file import read_json

FOLDER, INDEX, FORMAT = "inspection", "index.json", 1
EPISODES_SHOWN = 50  # unless said otherwise
SIDE = 96  # pixels that a frame has at most: larger ones are reduced
TALLEST = 16_000  # pixels of a sheet; WebP allows 16,383
QUALITY = 62  # of imagined frames, whose noise no lossless format takes well


def make_inspection(
    run_folder: Path, episodes: Sequence[int] | None = None, settings: Sequence[str] = ()
) -> dict[str, Any]:
    """Draw the episodes of a finished evaluation into ``inspection/`` of its folder, without planning again.

    Episodes that were drawn before are left as they are, unless the record of the evaluation has changed.

    Args:
        run_folder: Of ``plan.py``, or of an evaluation of a study.
        episodes: Numbers of those to draw; None means the first 50.
        settings: Of this machine, as ``plan.py`` takes them: ``num_threads=1``, ``device=cuda``.

    Returns:
        What ``inspection/index.json`` holds, see docs/report_page.md.

    Raises:
        ValueError: In one line, if the folder holds no finished evaluation with a record, or planned in the simulator,
            if its checkpoint is gone or was trained on, or if there is no such episode.
    """
    identity = read_identity(run_folder)
    config = settings_of(run_folder, identity, settings)
    device = runtime.pick_device(config.device)
    runtime.set_threads(config.num_threads)
    with runtime.autocast(config.precision, device, keeps_casts=False):
        subject, _ = subject_of(config, identity, lambda solved: _chosen(len(solved), episodes), device)
        try:
            return _draw_all(subject, run_folder)
        finally:
            subject.task.close()
            subject.simulator.close()


def _chosen(count: int, episodes: Sequence[int] | None) -> Tensor:
    wanted = sorted(set(range(min(count, EPISODES_SHOWN)) if episodes is None else episodes))
    if outside := [n for n in wanted if not 0 <= n < count]:
        raise ValueError(f"there are {count} episodes, none of them has the number {outside[0]}")
    return torch.tensor(wanted)


def _draw_all(subject: Subject, run_folder: Path) -> dict[str, Any]:
    folder, of = run_folder / FOLDER, sha256(run_folder / EPISODES)
    inspection, drawn = Inspection(subject, folder), _drawn_before(folder, of)
    index = inspection.index(of) | {"episodes": drawn}
    for n in subject.rows.tolist():
        if n not in drawn:
            inspection.draw(n)
            drawn = sorted([*drawn, n])
            index["episodes"] = drawn
            write_json(folder / INDEX, index)  # after each, so that an interrupted drawing goes on
    return index


def _drawn_before(folder: Path, of: str) -> list[int]:
    """Numbers of the episodes that were drawn from the same record."""
    if not (folder / INDEX).is_file():
        return []
    index = read_json(folder / INDEX, dict)
    return list(index["episodes"]) if (index.get("of"), index.get("format")) == (of, FORMAT) else []


class Inspection:
    """Draws episodes.

    Args:
        subject: The evaluation; ``rows`` are drawn.
        folder: Where to.
    """

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.folder = subject, folder
        self.ends: list[int] = subject.record.iteration_ends.tolist()
        self.side = min(SIDE, subject.task.env.image_size)
        self.every = -(-(self.ends[-1] + 2) * self.side // TALLEST)

    @property
    def taken(self) -> list[int]:
        """Blocks that each iteration executed."""
        return (np.diff(self.ends) // self.subject.task.frameskip).tolist()

    def index(self, of: str) -> dict[str, Any]:
        """What holds for all episodes; ``of``: digest of the record that they are drawn from."""
        has_decoder = self.subject.task.observer.model.decoder is not None
        return {
            "format": FORMAT,
            "of": of,
            "size": self.side,
            "every": self.every,
            "decoder": has_decoder,
            "taken": self.taken,
        }

    def draw(self, n: int) -> None:
        """Write the three files of an episode."""
        made = np.flatnonzero(self.subject.record.planned[n]).tolist()
        last = self.ends[made[-1] + 1] if made else 0
        known = [] if self._lacks_plans(n, made) else [i for i in made if i in self.subject.iterations]
        self._write_sheet(f"real_{n}.webp", self._real(n, last), lossless=True)
        if self.subject.task.observer.model.decoder is not None and known:
            self._write_sheet(f"imagined_{n}.webp", self._imagined(n, known), quality=QUALITY)
        env = self.subject.task.env
        path = env.places(torch.from_numpy(self.subject.record.states[n]))
        goal = env.places(self.subject.task.problem.goal_states[n])
        places = {name: place.double().numpy().round(4).tolist() for name, place in path.items()}
        places["goal"] = {name: place.double().numpy().round(4).tolist() for name, place in goal.items()}
        write_json(self.folder / f"places_{n}.json", places)

    def _lacks_plans(self, n: int, made: Sequence[int]) -> bool:
        """Whether some iterations were made before there was a record of plans."""
        return bool(np.isnan(self.subject.record.plans[n, made, 0]).any())

    def _real(self, n: int, last: int) -> Tensor:
        """Frames (N, 3, S, S) of every shown raw step up to ``last``, and of the goal."""
        task = self.subject.task
        problem = task.problem.part(torch.tensor([n]))
        actions = torch.from_numpy(self.subject.record.actions[[n], : last - last % self.every])
        task.env.reset(problem.seeds, problem.states, problem.layouts)
        frames = task.env.rollout(actions, self.every)[1]
        task.env.reset(problem.seeds, problem.goal_states, problem.layouts)
        assert frames is not None
        return torch.cat([frames[0].float(), task.env.render().float()])

    @torch.no_grad()
    def _imagined(self, n: int, made: Sequence[int]) -> Tensor:
        """Frames of the executed blocks of every plan, each followed by that of the plan's end."""
        frames = []
        for iteration in made:
            rows, blocks = self.subject.plans(iteration, torch.tensor([n]))
            latent = self.subject.request(iteration, rows).cost.imagine(blocks)
            shown = [*range(1, self.taken[iteration] + 1), blocks.shape[1]]
            picked = cat_latents([latent[:, at : at + 1] for at in shown], 1)
            frames.append((self.subject.task.observer.model.decode(picked)[0] + 1) * 127.5)
        return torch.cat(frames)

    def _write_sheet(self, name: str, frames: Tensor, **options: Any) -> None:
        images = [Image.fromarray(frame) for frame in to_uint8(frames)]
        sheet = Image.new("RGB", (self.side, self.side * len(images)))
        for place, image in enumerate(images):
            sheet.paste(image.resize((self.side, self.side), Image.Resampling.BOX), (0, place * self.side))
        if options.get("lossless"):  # few colours, most of them in large areas: eight bits are enough
            sheet = sheet.quantize(256, dither=Image.Dither.NONE).convert("RGB")
        write_file(self.folder / name, lambda path: sheet.save(path, format="webp", method=5, **options))
