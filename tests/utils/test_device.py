"""Devices and numbers of processes that cannot make sense."""

import pytest

from utils.machine import most_processes
from utils.runtime import pick_device


@pytest.mark.parametrize("device", ["cpu:99", "cpu:1", "meta", "cuda:99", "abacus", "cpu:", "-1", "fpga"])
def test_a_device_that_is_none_is_one_line(device):
    with pytest.raises(
        ValueError, match=rf"device={device} cannot be used here .*use device=auto or device=cpu"
    ) as error:
        pick_device(device)
    assert "\n" not in str(error.value)


def test_the_cpu_has_one_number():
    assert pick_device("cpu:0").type == pick_device("cpu").type == "cpu"


@pytest.mark.parametrize(("cores", "most"), [(1, 64), (2, 64), (96, 384), (None, 64)])
def test_the_bound_of_processes_follows_the_machine(monkeypatch, cores, most):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert most_processes() == most
