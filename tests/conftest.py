"""Fixtures shared by all tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def golden() -> Callable[[str], Path]:
    """Find a recorded input/output file that travels with the repository."""
    return lambda name: REPOSITORY / "tests" / "golden" / name


@pytest.fixture
def shared_golden() -> Callable[[str], Path]:
    """Find one of the larger recorded files, which lie beside the repository; skip where they are absent."""

    def find(name: str) -> Path:
        path = REPOSITORY.parent / "shared" / "golden" / name
        if not path.exists():
            pytest.skip(f"the larger recorded file {name} does not lie beside this checkout")
        return path

    return find
