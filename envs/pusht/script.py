"""A hand-written controller that pushes a block of PushT from one pose to the next."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import NamedTuple

import numpy as np

from envs.pusht.contacts import Floats, contacts
from envs.pusht.physics import WINDOW_SIZE

_WORTH_IT = 12.0  # pixels: a target is reached when no push brings the block nearer by more
_PATIENCE = 150  # steps for one target
_COST_OF_WAY = 0.1  # of a pixel of way to a contact, in pixels of progress; 0.4 gets stuck at pushes without progress
_WHIM = 3.0  # scale of the random part of a choice, pixels of progress
_GAIN = 2.0  # of a command over the way left: a step covers a third to a half of what is commanded
_ARRIVED = 12.0  # pixels beyond the ring at which the way to a contact may begin
_LANE = 6.0  # half its width
_SLIPPED = 20.0  # to the side of a contact
_WORSE = 10.0  # pixels: a push that has led away so far is given up
_INSIDE = 6.0  # so far inside the ring a walking agent may come
_STRAIGHT = 0.9  # a pixel straight ahead counts as so many along the ring: look ahead where both are the same way
_MARGIN = 20.0  # from the places in front of contacts to the window's edge
_TRIES = 10  # targets looked at in a row; none may allow a push if the block lies at the window's edge


class Pose(NamedTuple):
    """The pose of a block: its centre of gravity x + iy, pixels, and its angle, radians."""

    center: complex
    angle: float


class _Phase(Enum):
    LEAVE = auto()  # straight back from a contact
    WALK = auto()  # round the block
    PUSH = auto()  # straight to the contact and on


class PushScript:
    """Pushes a block to a pose, contact by contact, and then to the next one; for one episode.

    A contact is chosen for how far its push brings the block towards the target (an angle counts as pixels: times the
    radius of gyration), less a cost of the way there, and partly by chance. The agent walks round the block at a
    distance, goes straight at the contact, and pushes until that push helps no more or it has slipped off.

    Args:
        shape: Name of the block.
        targets: Poses for the block, without end.
        rng: All chance comes from here.
        speed: Length of the longest command, pixels.
    """

    def __init__(self, shape: str, targets: Iterator[Pose], rng: np.random.Generator, speed: float) -> None:
        self._block = contacts(shape)
        self._lengths = np.linalg.norm(self._block.pushes, axis=1)
        self._targets = targets
        self._rng = rng
        self._speed = speed
        self._next_target()
        self._contact = 0
        self._nearest = math.inf  # that this push has brought the block to the target
        self._phase = _Phase.LEAVE  # an agent outside the ring has left already

    def command(self, state: Sequence[float]) -> complex:
        """Choose where the agent goes from ``state`` (agent x, y, block x, y and angle first), relative, pixels."""
        turn = cmath.exp(1j * state[4])
        pose = Pose(complex(state[2], state[3]) + self._block.center * turn, state[4])
        agent = (complex(state[0], state[1]) - pose.center) / turn
        self._patience -= 1
        if self._patience <= 0:
            self._next_target()
            if self._phase is _Phase.WALK:
                self._choose(pose, agent)
        self._change_phase(pose, agent)
        way = self._way(pose, agent)
        return way * turn * min(_GAIN, self._speed / max(abs(way), 1e-9))

    def _change_phase(self, pose: Pose, agent: complex) -> None:
        if self._phase is _Phase.PUSH and self._is_useless(pose, agent):
            self._phase = _Phase.LEAVE
        if self._phase is _Phase.LEAVE and self._block.outside(agent).max() > -_INSIDE:
            self._phase = _Phase.WALK
            self._choose(pose, agent)
        if self._phase is _Phase.WALK:
            ahead, beside = self._lane(agent)
            begin = abs(self._block.ring[self._block.exits[self._contact]] - self._block.points[self._contact])
            if abs(beside) < _LANE and 0 < ahead < begin + _ARRIVED:
                self._phase, self._nearest = _Phase.PUSH, math.inf

    def _is_useless(self, pose: Pose, agent: complex) -> bool:
        distance = float(np.linalg.norm(self._error(pose)))
        self._nearest = min(self._nearest, distance)
        return self._left(pose) < 1 or distance > self._nearest + _WORSE or abs(self._lane(agent)[1]) > _SLIPPED

    def _way(self, pose: Pose, agent: complex) -> complex:
        """The way from the agent to where this phase leads it, in the block's directions."""
        inward = complex(self._block.inward[self._contact])
        if self._phase is _Phase.LEAVE:
            return -inward * self._speed
        if self._phase is _Phase.WALK:
            return self._waypoint(agent) - agent
        ahead, beside = self._lane(agent)
        return inward * complex(min(ahead + self._left(pose), self._speed / _GAIN), beside)

    def _waypoint(self, agent: complex) -> complex:
        """The place on the ring to make for: on the shortest way to where that to the contact begins."""
        ring, outside = self._block.ring, self._block.outside(agent)
        ways = _STRAIGHT * np.abs(ring - agent) + self._block.along_ring(int(self._block.exits[self._contact]))
        seen = outside > min(float(outside.max()), 0.0) - _INSIDE
        return complex(ring[np.where(seen, ways, np.inf).argmin()])

    def _choose(self, pose: Pose, agent: complex) -> None:
        """Take the best contact; if the target is reached, for one of those that follow."""
        block = self._block
        nearest = int(np.abs(block.ring - agent).argmin())
        cost = _COST_OF_WAY * block.along_ring(nearest)[block.exits] - self._rng.gumbel(0.0, _WHIM, len(block.exits))
        fronts = pose.center + block.ring[block.exits] * cmath.exp(1j * pose.angle)
        inset = np.minimum(np.minimum(fronts.real, fronts.imag), WINDOW_SIZE - np.maximum(fronts.real, fronts.imag))
        for _ in range(_TRIES):
            progress = np.where(inset > _MARGIN, block.pushes @ self._error(pose) / self._lengths, -np.inf)
            if progress.max() > _WORTH_IT:
                break
            self._next_target()
        self._contact = int((progress - cost).argmax())

    def _next_target(self) -> None:
        self._target, self._patience = next(self._targets), _PATIENCE

    def _error(self, pose: Pose) -> Floats:
        """The way of the block to its target: (3,), in the block's directions, the angle as pixels."""
        vector = (self._target.center - pose.center) / cmath.exp(1j * pose.angle)
        angle = math.remainder(self._target.angle - pose.angle, 2 * math.pi)
        return np.array((vector.real, vector.imag, angle * self._block.gyration))

    def _left(self, pose: Pose) -> float:
        """The distance to push on: as long as the block comes nearer to its target."""
        return float(self._block.pushes[self._contact] @ self._error(pose))

    def _lane(self, agent: complex) -> tuple[float, float]:
        """The way from the agent to the contact, forward and to the side."""
        way = (self._block.points[self._contact] - agent) / self._block.inward[self._contact]
        return float(way.real), float(way.imag)
