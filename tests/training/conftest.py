"""A tiny data set for everything that trains."""

import pytest
import torch

from tests.training.tiny import make_wall


@pytest.fixture(scope="session")
def wall_root(tmp_path_factory):
    """Folder of data sets with a tiny ``wall_single`` in it."""
    return make_wall(tmp_path_factory.getbasetemp() / "tiny_data")


@pytest.fixture(autouse=True)
def data_root(wall_root, monkeypatch):
    """Every test here finds the tiny data; the threads are put back afterwards."""
    monkeypatch.setenv("DATASET_DIR", str(wall_root))
    threads = torch.get_num_threads()
    yield wall_root
    torch.set_num_threads(threads)
