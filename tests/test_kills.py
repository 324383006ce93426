"""kill -9, for real, at file operations one after the other and at random moments."""

import random
import signal

import pytest

from tests.killing import PLANNING, SAVING, TRAINING, finish, kill_often, prepare, start
from tests.training.test_resume import assert_same_run
from tests.training.tiny import run

SEED = random.SystemRandom().randrange(10**6)
SHORT = (*SAVING, "training.max_batches=3", "training.save_every_x_batch=2")


@pytest.fixture(autouse=True)
def _prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_DIR", "")  # so that it is put back
    prepare(tmp_path)


def kill_at_operations(tmp_path, numbers):
    """Kill one run after the other, each once, and let each finish; returns how many were killed."""
    run(tmp_path / "whole", *SHORT)
    for count, number in enumerate(numbers):
        folder = tmp_path / f"at_{number}"
        process = start(run, folder, SHORT, at=number)
        process.join(60)
        if process.exitcode == 0:  # it has fewer of them
            return count
        assert process.exitcode == -signal.SIGKILL
        TRAINING.look(folder)
        finish(start(run, folder, SHORT), folder)
        assert_same_run(folder, tmp_path / "whole")
    return len(numbers)


def test_killed_at_some_file_operations(tmp_path):
    numbers = sorted(random.Random(SEED).sample(range(1, 40), 3))
    assert kill_at_operations(tmp_path, numbers) == 3, SEED


@pytest.mark.slow
def test_killed_at_every_eighth_file_operation_of_a_run(tmp_path):
    """From a random one on."""
    assert kill_at_operations(tmp_path, range(1 + SEED % 8, 1000, 8)) > 3, SEED


@pytest.mark.parametrize("work", [TRAINING, PLANNING], ids=["training", "planning"])
def test_killed_at_random_moments(tmp_path, work):
    """``python -m tests.kills`` does more of them."""
    _, further = kill_often(work, tmp_path, 5, SEED)
    assert further >= 1, SEED  # or it only ever killed what had just started
