"""Plays episodes of a one-episode simulator row by row: what a worker process does, whichever process it is in."""

from __future__ import annotations

import importlib
import itertools
import pickle
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from envs.simulator import EpisodeLayout, Simulator

Arrays = Mapping[str, NDArray[Any]]
Options = Mapping[str, Any]
"""Arguments of a simulator beside the size of its images: numbers, texts and lists of them."""


@dataclass(frozen=True)
class ResetTask:
    """Start the episodes ``rows`` in ``states`` (B, S), an array, which becomes where they really start from.

    Attributes:
        rows: Episodes of this player.
        layouts: One for each of them.
    """

    rows: Sequence[int]
    layouts: Sequence[EpisodeLayout]


@dataclass(frozen=True)
class PlayTask:
    """Step through ``actions`` (n, K, A), writing ``visited`` (n, K, S) and ``frames`` (n, F, 3, H, W), all arrays.

    F is 0, or one frame after each block, or one more, which shows the state before the first step.

    Attributes:
        rows: Episodes of this player.
        places: Where each is in the arrays, below n.
        block: Raw steps between two frames; K is a multiple.
    """

    rows: Sequence[int]
    places: Sequence[int]
    block: int


@dataclass(frozen=True)
class CopyTask:
    """Answer with the episodes as they are, see ``EpisodePlayer.copies``."""


Task = ResetTask | PlayTask
Copies = dict[int, bytes]
"""Episodes to go on with elsewhere: row -> its simulator, pickled."""


@dataclass(frozen=True)
class Failure:
    """The reason why a task was not done.

    Attributes:
        rows: The episodes concerned.
        message: What happened, one line.
        details: a traceback, or empty.
        is_refusal: The simulator did not accept a state, a layout or an action, which is no fault of its own.
    """

    rows: Sequence[int]
    message: str
    details: str = ""
    is_refusal: bool = False


def load_simulator(location: str) -> type[Simulator]:
    """Import a simulator's class.

    Raises:
        ValueError: If ``location`` is not ``module:Class``, or there is no such simulator.
    """
    module, colon, name = location.partition(":")
    if not (module and colon and name):
        raise ValueError(f"a simulator is named as module:Class, got {location!r}")
    found = getattr(importlib.import_module(module), name, None)
    if not (isinstance(found, type) and issubclass(found, Simulator)):
        raise ValueError(f"simulator {location}: the module {module} has no subclass of Simulator named {name!r}")
    return found


class EpisodePlayer:
    """Simulators of some of the rows of a batch, made when a row first occurs and kept for the batches that follow."""

    def __init__(self, location: str, image_size: int, options: Options | None = None) -> None:
        """Play episodes of the simulator ``module:Class`` with images of this size, pixels, and these arguments."""
        self._location, self._options = location, options or {}
        self._image_size = image_size
        self._simulators: dict[int, Simulator] = {}
        self._copies: Copies = {}

    def take(self, copies: Copies) -> None:
        """Go on with episodes of another player; they are unpickled when first played."""
        self._copies |= copies

    def copies(self) -> Copies | Failure:
        """Pickle all episodes as they are now, for another player."""
        try:
            return self._copies | {row: pickle.dumps(simulator) for row, simulator in self._simulators.items()}
        except Exception as error:  # simulators hold what they like
            return Failure([], f"{type(error).__name__}: {error}", traceback.format_exc())

    def run(self, task: Task, arrays: Arrays) -> Failure | None:
        """Do a task one row after the other; stops at the first that fails."""
        for index, row in enumerate(task.rows):
            try:
                if isinstance(task, ResetTask):
                    self._reset(row, task.layouts[index], arrays["states"])
                else:
                    self._play(row, task, {name: array[task.places[index]] for name, array in arrays.items()})
            except ValueError as error:
                return Failure([row], str(error), traceback.format_exc(), is_refusal=True)
            except Exception as error:  # whatever it was, it is reported where the user looks
                return Failure([row], f"{type(error).__name__}: {error}", traceback.format_exc())
        return None

    def _reset(self, row: int, layout: EpisodeLayout, states: NDArray[Any]) -> None:
        self._copies.pop(row, None)
        if row not in self._simulators:
            self._simulators[row] = load_simulator(self._location)(self._image_size, **self._options)
        # a copy, here and below: a simulator may keep what it is given, but this memory is written again
        states[row] = self._simulators[row].reset(states[row].copy(), layout)

    def _play(self, row: int, task: PlayTask, own: Arrays) -> None:
        if row in self._copies:
            self._simulators[row] = pickle.loads(self._copies.pop(row))
        simulator, actions, frames = self._simulators[row], own["actions"], iter(own["frames"])
        starts = range(0, len(actions), task.block)
        if len(own["frames"]) > len(starts):
            _draw(simulator, next(frames))
        for start in starts:
            part = slice(start, start + task.block)
            own["visited"][part] = simulator.step(actions[part].copy())
            for frame in itertools.islice(frames, 1):  # none, if none are wanted
                _draw(simulator, frame)

    def close(self) -> None:
        """Release the simulators."""
        self._copies.clear()
        while self._simulators:
            self._simulators.popitem()[1].close()


def _draw(simulator: Simulator, frame: NDArray[Any]) -> None:
    """Write the current image into ``frame`` (3, H, W).

    The channels are brought to the front here, where workers share the work, and by OpenCV, which takes 6 microseconds
    (NumPy 40, torch 350), not much beside the hundred or so that drawing takes.
    """
    image = simulator.render()
    if image.shape != (*frame.shape[1:], 3) or image.dtype != np.uint8:  # OpenCV would write somewhere else
        raise TypeError(
            f"an image must be {(*frame.shape[1:], 3)} uint8, the simulator drew {image.shape} {image.dtype}"
        )
    cv2.split(image, list(frame))
