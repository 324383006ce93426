"""Processes that work together: what they tell each other, and how they learn that there are several."""

import os

import pytest
import torch
from torch import nn

from training.gradients import gather_rows, sum_gradients
from utils import distributed
from utils.distributed import Share
from utils.slurm import adopt_srun

SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "7"}


def gradients():
    """In any process: of three weights, one of which only the second process uses, and one nobody."""
    weights = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    rank = distributed.rank()
    loss = weights[0].sum() * (rank + 1) + (weights[1].sum() if rank else 0)
    loss.backward()
    sum_gradients(weights)
    return [None if weight.grad is None else weight.grad.tolist() for weight in weights]


def test_gradients_are_sums_and_what_nobody_used_has_none(pair):
    assert pair(gradients) == [[[3, 3], [1, 1], None]] * 2


def spread(total):
    """In any process: the gradient of the variance of rows that all processes have parts of."""
    share = distributed.share(total)
    rows = torch.arange(2.0 * total).view(total, 2).square()[share.rows].requires_grad_()
    (gather_rows(rows, share).var(0).sum() / distributed.size()).backward()
    return rows.grad


def test_rows_of_all_processes_carry_gradients_back(pair):
    # each process has its part of the loss; the sum over processes of what it does to a row is that of the whole
    torch.testing.assert_close(torch.cat(pair(spread, 5)), spread(5))


def told():
    """In any process: what it gets from the others."""
    rank = distributed.rank()
    collected = distributed.gather(f"of {rank}")
    return collected, distributed.broadcast(rank), distributed.add_up({"a": rank + 0.5}), distributed.largest(rank)


def test_what_one_says_all_hear(pair):
    assert pair(told) == [(["of 0", "of 1"], 0, {"a": 2.0}, 1)] * 2


def test_shares_are_whole_even_and_in_order(pair):
    assert pair(distributed.share, 5) == [Share(0, 2, 5), Share(2, 3, 5)]
    assert pair(distributed.share, 1) == [Share(0, 0, 1), Share(0, 1, 1)]


@pytest.mark.parametrize(
    ("nodes", "count", "host"),
    [
        ("gpu[07-09,12]", "4", "gpu07"),
        ("a1-b[3,5]-x", "2", "a1-b3-x"),
        ("here,there", "2", "here"),
        ("gpu7", "1", "127.0.0.1"),
    ],
)
def test_tasks_of_srun_are_processes_of_one_run(monkeypatch, nodes, count, host):
    environment = {**SRUN, "SLURM_STEP_NODELIST": nodes, "SLURM_STEP_NUM_NODES": count}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "x")  # so that they are put back
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert adopt_srun() == 2
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"]) == ("2", "4", "0")
    assert os.environ["MASTER_ADDR"] == host and 20000 <= int(os.environ["MASTER_PORT"]) < 32000


def test_a_task_alone_or_a_process_of_torchrun_is_left_as_it_is(monkeypatch):
    for name, value in {**SRUN, "SLURM_STEP_NODELIST": "gpu7", "SLURM_STEP_NUM_TASKS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert adopt_srun() == 0
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert adopt_srun() == 1
