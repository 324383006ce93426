"""What the contracts are held against."""

from __future__ import annotations

import pytest

from tests.contracts.options import Composing, names

GROUPS = {
    "env_option": "env",
    "dataset_option": "dataset",
    "projector_option": "projector",
    "proposal_option": "proposal",
    "planner_option": "planner",
    "method_option": "method",
    "encoder_option": "encoder",
}


NOTHING = {("projector", "none")}
"""Options that build nothing."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for an option every one of its group."""
    for argument, group in GROUPS.items():
        if argument in metafunc.fixturenames:
            options = [name for name in names(metafunc.config, group) if (group, name) not in NOTHING]
            metafunc.parametrize(argument, options, scope="module")


@pytest.fixture(scope="session")
def composing(pytestconfig: pytest.Config) -> Composing:
    """Composes configs as the entries do."""
    return Composing(pytestconfig)
