"""kill -9, for real, at file operations one after the other and at random moments."""

import random
import signal
import time

import pytest

from models.checkpoint import read_checkpoint
from tests.training.killing import assert_all_is_whole, start
from tests.training.test_resume import assert_same_run
from tests.training.tiny import BRIEF_PLANS, STATE, run

SEED = random.SystemRandom().randrange(10**6)
SAVING = ("training.num_reconstruct_samples=0", "method.replay_capacity=8")
SHORT = (*STATE, *BRIEF_PLANS["online"], *SAVING, "training.max_batches=3", "training.save_every_x_batch=2")
LONG = (*STATE, *BRIEF_PLANS["online"], *SAVING, "training.max_batches=40", "training.save_every_x_batch=1",
        "training.epochs=5")  # fmt: skip


def kill_at_operation(folder, overrides, number):
    """Whether it came to that operation."""
    process = start(folder, *overrides, at=number)
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def kill_at_operations(tmp_path, numbers):
    """Kill one run after the other, each once, and let each finish; returns how many were killed."""
    base = f"ckpt_path={tmp_path / 'no_base'}"
    run(tmp_path / "whole", *SHORT, base)
    killed = 0
    for number in numbers:
        folder = tmp_path / f"at_{number}"
        if not kill_at_operation(folder, (*SHORT, base), number):
            break
        killed += 1
        assert_all_is_whole(folder)
        process = start(folder, *SHORT, base)
        process.join(60)
        assert process.exitcode == 0, number
        assert_same_run(folder, tmp_path / "whole")
    return killed


def test_killed_at_some_file_operations(tmp_path):
    numbers = sorted(random.Random(SEED).sample(range(1, 40), 4))
    assert kill_at_operations(tmp_path, numbers) == 4, SEED


@pytest.mark.slow
def test_killed_at_every_file_operation_of_a_run(tmp_path):
    assert kill_at_operations(tmp_path, range(1, 1000)) > 40


def kill_at_random(folder, overrides, kills, chance):
    """Start, kill at a random moment, look at what is left, again and again; returns the kills until it was done."""
    process, killed = start(folder, *overrides), 0
    while killed < kills:
        began, step = time.monotonic(), assert_all_is_whole(folder)
        at = chance.uniform(0, 1.0)
        while process.is_alive() and time.monotonic() - began < at:
            time.sleep(0.001)
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        killed += 1
        assert assert_all_is_whole(folder) >= step  # nothing that was saved is lost
        process = start(folder, *overrides)
    process.join(120)
    assert process.exitcode == 0
    return killed


def kill_often(tmp_path, kills):
    """Until so many kills were survived; every run must end as the undisturbed one does."""
    overrides, chance = (*LONG, f"ckpt_path={tmp_path / 'no_base'}"), random.Random(SEED)
    run(tmp_path / "whole", *overrides)
    survived, folder = 0, tmp_path / "killed"
    while survived < kills:
        survived += kill_at_random(folder, overrides, kills - survived, chance)
        read_checkpoint(folder)
        assert_same_run(folder, tmp_path / "whole")
        folder = folder.with_name(f"killed_{survived}")
    return survived


def test_killed_at_random_moments(tmp_path):
    assert kill_often(tmp_path, 4) == 4, SEED


@pytest.mark.slow
def test_fifty_kills_at_random_moments(tmp_path):
    """About a minute on one core."""
    assert kill_often(tmp_path, 50) == 50, SEED
