"""Every environment of the config folder keeps the contract of ``envs.base.VectorEnv``."""

from __future__ import annotations

import functools

import pytest
from hydra.utils import instantiate

from envs.expert import Expert
from envs.opengl import OpenGLError
from tests.contracts.environment_contract import CHECKS, check_determinism


@pytest.fixture(scope="module")
def settings(env_option, composing):
    """The ``env`` of a config, of an environment that plays in this process."""
    found = composing(f"env={env_option}")["env"]
    if "num_workers" in found["simulator"]:
        found["simulator"]["num_workers"] = 0
    return found


@pytest.fixture(scope="module")
def make(settings):
    """A function that makes the environment."""
    return functools.partial(instantiate, settings["simulator"], image_size=32)


@pytest.fixture(scope="module")
def env(make):
    """One for all checks: they leave nothing behind."""
    made = make()
    try:
        made.reset([0], made.sample_start_goal([0])[0])
        made.render()
    except OpenGLError as error:
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_an_environment_keeps_its_contract(check, env):
    check(env)


def test_it_is_deterministic(make, env):
    check_determinism(make)


def test_its_file_says_its_sizes(settings, env):
    for size in ("name", "state_dim", "proprio_dim", "env_action_dim"):
        assert settings[size] == getattr(env, size), size


def test_its_expert_acts_in_it(settings, env):
    if "collector" not in settings:
        pytest.skip("it has no expert (collector)")
    from datasets.collecting.recording import record

    expert = instantiate(settings["collector"])
    assert isinstance(expert, Expert)
    together, alone = (record(env, expert, 0, numbers, 5) for numbers in ([0, 1, 2], [1]))
    assert together.actions.shape == (3, 5, env.env_action_dim)
    assert alone.actions[0].equal(together.actions[1]) and alone.states[0].equal(together.states[1])
