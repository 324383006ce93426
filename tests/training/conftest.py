"""Every test here finds the tiny data."""

import pytest


@pytest.fixture(autouse=True)
def _data(data_root):
    pass
