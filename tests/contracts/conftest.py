"""What the contracts are held against."""

from __future__ import annotations

import pytest

from tests.contracts.options import Composing, names

GROUPS = {
    "env_option": "env",
    "dataset_option": "dataset",
    "proposal_option": "proposal",
    "planner_option": "planner",
    "method_option": "method",
    "encoder_option": "encoder",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that asks for an option every one of its group."""
    for argument, group in GROUPS.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, names(metafunc.config, group), scope="module")


@pytest.fixture(scope="session")
def composing(pytestconfig: pytest.Config) -> Composing:
    """Composes configs as the entries do."""
    return Composing(pytestconfig)
