"""A simulator whose every bit is known, and which fails in any way it is told to."""

import os
import signal
import sys
import threading
import time
from typing import ClassVar

import numpy as np

from envs.simulator import Simulator

# First components of an action that are commands.
EXIT, KILL, CRASH, HANG, RAISE, REPORT = (1000.0 + number for number in range(6))


class ToySimulator(Simulator):
    """A chaotic map: one wrong bit anywhere would soon be visible. State (3,) = x, y, number of steps."""

    name = "toy"
    state_dim = 3
    env_action_dim = 2
    proprio_indices = (2, 0)
    num_closed: ClassVar[int] = 0  # simulators of this process

    def __init__(self, image_size: int = 224) -> None:
        super().__init__(image_size)
        self.num_images = 0

    @classmethod
    def default_layout(cls):
        return {"gain": np.array([3.0], np.float32), "offset": np.array([0.0, 0.5])}

    @classmethod
    def sample_start_goal(cls, seed):
        random = np.random.RandomState(seed)
        return random.uniform(size=3), random.uniform(size=3)

    @classmethod
    def compare(cls, states, goals):
        distance = np.linalg.norm(states - goals, axis=1)
        return distance < 0.5, distance

    def reset(self, state, layout):
        if not np.isfinite(state).all():
            raise ValueError(f"env toy: state must be finite, got {state.tolist()}")
        self.layout, self.state = layout, state
        self.state[2] = 0.0  # an episode does not start exactly where it is told to
        return self.state

    def step(self, actions):
        return np.array([self._step(action) for action in actions]).reshape(len(actions), 3)

    def _step(self, action):
        if np.isnan(action).any():
            raise ValueError("actions must be numbers")
        if action[0] >= EXIT:
            return self._obey(action[0])
        x, y = self.state[:2] + action + self.layout["offset"]
        # a new array each time, unlike reset: both must be safe
        self.state = np.array([np.sin(self.layout["gain"][0] * 7 * x + y), np.cos(5 * x * y), self.state[2] + 1])
        return self.state

    def _obey(self, command):
        if command == EXIT:
            os._exit(3)
        if command in (KILL, CRASH):
            os.kill(os.getpid(), signal.SIGKILL if command == KILL else signal.SIGSEGV)
        if command == HANG:
            time.sleep(1000)
        if command == RAISE:
            raise ZeroDivisionError("toy trouble")
        return np.array([os.getpid(), self.num_images, "torch" in sys.modules])  # REPORT

    def render(self):
        self.num_images += 1
        shape = (self.image_size, self.image_size, 3)
        values = np.arange(np.prod(shape)).reshape(shape) * 7 + np.abs(self.state[:2]).sum() * 1e6
        return (values % 256).astype(np.uint8)

    def close(self):
        ToySimulator.num_closed += 1


class UncopiableSimulator(ToySimulator):
    """Holds something that nothing can copy."""

    def __init__(self, image_size: int = 224) -> None:
        super().__init__(image_size)
        self.lock = threading.Lock()
