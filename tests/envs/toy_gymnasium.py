"""Gymnasium environments whose state is read and set in each of the ways that there are."""

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.gymnasium_simulator import GymnasiumSimulator


class Walk(gymnasium.Env):
    """A white spot that walks over a black picture; nobody is told where it is."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = spaces.Box(-1, 1, (2,))

    def __init__(self, render_mode=None, actions=None):
        self.render_mode = render_mode
        self.action_space = actions or spaces.Box(-0.2, 0.2, (2,))
        self.lock = (spot for spot in ())  # something that cannot be copied
        self.reset()

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 2)
        return self.place, {}

    def step(self, action):
        self.place = np.clip(self.place + action, -1, 1)
        return self.place, 0.0, True, False, {}

    def render(self):
        image = np.zeros((40, 60, 3), np.uint8)
        x, y = np.round((self.place + 1) * (25, 15)).astype(int)
        image[y : y + 10, x : x + 10] = 255
        return image


class KnownWalk(Walk):
    """The same with the two methods."""

    def get_state(self):
        return self.place

    def set_state(self, state):
        self.place = np.array(state)


class WalkSimulator(GymnasiumSimulator):
    """Reads the state of an environment that does not know these methods; success is the place alone."""

    def get_state(self):
        return np.array(self.env.unwrapped.place)

    def set_state(self, state):
        self.env.unwrapped.place = state

    def compare(self, states, goals):
        distance = np.abs(states - goals).max(1)
        return distance < 0.1, distance


class Car(GymnasiumSimulator):
    """MountainCarContinuous, whose episodes all begin at the bottom: starts and goals are drawn from the whole way."""

    def sample_start_goal(self, seed):
        return tuple(np.random.default_rng(seed).uniform((-1.2, -0.07), (0.6, 0.07), (2, 2)))

    def compare(self, states, goals):
        distance = np.abs(states - goals)[:, 0]
        return distance < 0.1, distance


gymnasium.register("Walk-v0", Walk)
gymnasium.register("KnownWalk-v0", KnownWalk)
gymnasium.register("DiscreteWalk-v0", Walk, kwargs={"actions": spaces.Discrete(2)})
