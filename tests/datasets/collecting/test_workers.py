"""Work in processes: progress, failures, death."""

import os

import pytest

from datasets.collecting.workers import WorkerError, run_in_processes


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_item_is_done_once(num_workers):
    yielded = sorted(run_in_processes(range, [3, 1, 2, 4], num_workers))  # item n yields 0..n - 1
    assert yielded == sorted([*range(3), *range(1), *range(2), *range(4)])


def test_a_failure_in_a_worker_is_reported_with_its_traceback():
    with pytest.raises(WorkerError, match=r"Traceback(.|\n)*'int' object is not iterable"):
        list(run_in_processes(abs, [1], 2))


def refuse(item):
    raise ValueError(f"item {item} cannot be done: use another")
    yield


def test_an_error_of_the_users_making_is_one_line():
    with pytest.raises(WorkerError) as caught:
        list(run_in_processes(refuse, [1], 2))
    assert str(caught.value) == "item 1 cannot be done: use another"


def test_a_worker_that_dies_is_noticed():
    with pytest.raises(WorkerError, match="exit code 3"):
        list(run_in_processes(os._exit, [3], 2))
