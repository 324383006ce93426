"""The record of an evaluation's episodes, ``episodes.npz``; docs/results_format.md describes every array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from planning.episodes import Episodes
from planning.history import spread
from planning.replay import Replay
from utils.files import write_file
from utils.reading.npz_file import read_npz
from utils.reading.opening import FileError
from utils.retry import Retry

EPISODES = "episodes.npz"
FORMAT = 1
REMEDY = "plan again in another folder to get one"
MOST_PER_BYTE = 200  # episodes that were solved at once leave much that is empty
LATENTS = ("imagined_visual", "imagined_proprio")
Array = NDArray[Any]

ARRAYS: dict[str, tuple[str, str]] = {
    "iteration_ends": ("iu", "J"),
    "states": ("f", "B L S"),
    "actions": ("f", "B K A"),
    "distances": ("f", "B L"),
    "inside": ("b", "B L"),
    "planned": ("b", "B I"),
    "plans": ("f", "B I P A"),
    "cost_before": ("f", "B I"),
    "cost_after": ("f", "B I"),
    "trace_steps": ("iu", "I T"),
    "trace": ("f", "B I T"),
    "evaluations": ("iu", "B I"),
    "gradients": ("iu", "B I"),
    "planning_seconds": ("f", "B I"),
    "simulation_seconds": ("f", "I"),
    "imagined_distance": ("f", "B I"),
    "true_distance": ("f", "B I"),
    "imagined_visual": ("f", "B I N Q D"),
    "imagined_proprio": ("f", "B I N E"),
}
"""Kinds of numbers and sides of every array; equal letters are equal numbers, L = K + 1 and J = I + 1."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """What happened in B episodes, in I iterations and K raw steps; see docs/results_format.md.

    Attributes:
        frameskip: Raw steps of an action block.
        iteration_ends: (I + 1,) raw steps executed after 0, 1, ... iterations.
        states: (B, K + 1, S) true states at every raw step.
        actions: (B, K, A) raw actions executed, zeros once solved.
        distances: (B, K + 1) distances to the goals as the environment judges them.
        inside: (B, K + 1) whether inside the success region.
        planned: (B, I) whether an iteration planned for the episode.
        plans: (B, I, H * frameskip, A) raw actions planned, NaN where there are none.
        cost_before: (B, I) objective of the initial actions; NaN where not known.
        cost_after: (B, I) objective of the plan.
        trace_steps: (I, T) optimiser steps of the trace, -1 beyond its end.
        trace: (B, I, T) costs then.
        evaluations: (B, I) rollouts imagined.
        gradients: (B, I) how many of them were differentiated.
        planning_seconds: (B, I) wall clock, shared evenly by those planned together.
        simulation_seconds: (I,) wall clock of simulating, rendering and encoding what was executed, of all episodes.
        imagined_distance: (B, I) latent distance to the goal of the last executed frame, as imagined before.
        true_distance: (B, I) the same, as seen after.
        imagined_visual: (B, I, H + 1, P, D) float16, what was imagined of the plans; None unless it was saved.
        imagined_proprio: (B, I, H + 1, E) its other part.
    """

    frameskip: int
    iteration_ends: Array
    states: Array
    actions: Array
    distances: Array
    inside: Array
    planned: Array
    plans: Array
    cost_before: Array
    cost_after: Array
    trace_steps: Array
    trace: Array
    evaluations: Array
    gradients: Array
    planning_seconds: Array
    simulation_seconds: Array
    imagined_distance: Array
    true_distance: Array
    imagined_visual: Array | None = None
    imagined_proprio: Array | None = None

    @classmethod
    def of(cls, episodes: Episodes, replay: Replay, frameskip: int, horizon: int) -> EpisodeRecord:
        """Put together what was kept of finished episodes, planned for up to ``horizon`` blocks ahead."""
        history, num = episodes.history, len(replay.states)
        traced = max((len(entry["trace_steps"]) for entry in history if "trace_steps" in entry), default=0)
        steps = torch.full((len(history), traced), -1, dtype=torch.long)
        planned = torch.zeros(num, len(history), dtype=torch.bool)
        for number, entry in enumerate(history):
            planned[entry["rows"], number] = True
            if "trace_steps" in entry:
                steps[number, : len(entry["trace_steps"])] = entry["trace_steps"]
        reals = ("cost_before", "cost_after", "imagined_distance", "true_distance")
        found = {name: spread(history, name, num, torch.nan, torch.float32) for name in reals}
        found |= {name: spread(history, name, num, 0, torch.long) for name in ("evaluations", "gradients")}
        raw = (horizon * frameskip, replay.actions.shape[2])
        found["plans"] = spread(history, "plans", num, torch.nan, torch.float32, raw)
        found["trace"] = spread(history, "trace", num, torch.nan, torch.float32, (traced,))
        found["planning_seconds"] = spread(history, "planning_seconds", num, 0, torch.float64)
        for name in LATENTS:
            if shapes := [entry[name].shape[2:] for entry in history if name in entry]:
                found[name] = spread(history, name, num, torch.nan, torch.float16, (horizon + 1, *shapes[0]))
        return cls(
            frameskip=frameskip,
            iteration_ends=np.array(replay.ends[: len(history) + 1]),
            states=replay.states.numpy(),
            actions=replay.actions.cpu().numpy(),
            distances=replay.distances.numpy(),
            inside=replay.inside.numpy(),
            planned=planned.numpy(),
            trace_steps=steps.numpy(),
            simulation_seconds=np.array([entry["simulation_seconds"].item() for entry in history]),
            **{name: value.numpy() for name, value in found.items()},
        )

    @classmethod
    def read(cls, path: Path, latents: bool = True) -> EpisodeRecord:
        """Read an ``episodes.npz``.

        Args:
            path: The file.
            latents: Whether with those, if there are some; they may be a hundred times as large as all else.

        Raises:
            FileError: If it is broken, of a later format or something else, in one line that names it.
            OSError: If it cannot be read.
        """
        names = {"format", "frameskip", *ARRAYS}.difference(() if latents else LATENTS)
        arrays = dict(read_npz(path, REMEDY, MOST_PER_BYTE, names))
        given, frameskip = (arrays.pop(name, np.zeros(1)) for name in ("format", "frameskip"))
        if given.ndim or given != FORMAT:
            said = f"format {given}" if not given.ndim else "no format"
            raise FileError(f"{path} is no {EPISODES} of format {FORMAT} (it has {said}); {REMEDY}")
        if frameskip.ndim or frameskip.dtype.kind not in "iu" or frameskip < 1:
            raise FileError(f"{path} is no {EPISODES} (frameskip must be a whole number, at least 1); {REMEDY}")
        if wrong := _wrong(arrays):
            raise FileError(f"{path} is no {EPISODES} ({wrong}); {REMEDY}")
        return cls(frameskip=int(frameskip), **arrays)

    def part(self, rows: Sequence[int]) -> EpisodeRecord:
        """Keep episodes ``rows``, in this order."""
        arrays = {name: getattr(self, name) for name, (_, sides) in ARRAYS.items() if sides.startswith("B")}
        return replace(self, **{name: value[list(rows)] for name, value in arrays.items() if value is not None})

    def write(self, path: Path, retry: Retry | None = None) -> None:
        """Write an ``episodes.npz``, whole or not at all; ``retry``: see ``utils.files.write_file``."""
        arrays = {item.name: getattr(self, item.name) for item in fields(self)}
        arrays = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
        size = sum(value.nbytes for value in arrays.values())
        write_file(path, lambda temporary: _save(temporary, {"format": np.array(FORMAT), **arrays}), retry, size)


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _wrong(arrays: Mapping[str, Array]) -> str:
    """Say in what the arrays are not those of a record; nothing if they are."""
    sides: dict[str, int] = {}
    if missing := [name for name in ARRAYS if name not in arrays and name not in LATENTS]:
        return f"without {missing[0]}"
    for name, (kinds, letters) in ARRAYS.items():
        if name not in arrays:
            continue
        shape = arrays[name].shape
        named = dict(zip(letters.split(), shape, strict=False))
        if arrays[name].dtype.kind not in kinds or len(shape) != len(letters.split()):
            return f"{name} is {arrays[name].dtype} {shape}"
        if different := [letter for letter in named if sides.setdefault(letter, named[letter]) != named[letter]]:
            return f"{name} has the shape {shape}, another one {sides[different[0]]} for {named[different[0]]}"
    if sides["L"] != sides["K"] + 1 or sides["J"] != sides["I"] + 1:
        return "states or iteration_ends have not one entry more than actions or planned"
    ends = arrays["iteration_ends"]
    if len(ends) and (ends[0] != 0 or (np.diff(ends) < 0).any() or ends[-1] > sides["K"]):
        return "iteration_ends do not rise from 0 to at most the number of actions"
    return ""
