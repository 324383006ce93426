"""Batches: the same ones whatever reads them, and how long the training waited."""

import logging
import threading
import time

import pytest
import torch

from datasets.batch import Batch
from datasets.readers import ReaderError, one_line_if_a_reader_dies
from datasets.sampler import ResumableSampler
from tests.training.tiny import STATE, build, without_times
from training import batch_loader as loading_module
from training.batch_loader import BatchLoader, sensible_workers


class Numbers(torch.utils.data.Dataset):
    """Samples that are their own number; ``seconds`` to read a batch."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def __len__(self):
        return 24

    def __getitems__(self, numbers):
        time.sleep(self.seconds)
        number = torch.as_tensor(numbers)
        rows = number[:, None].float()
        return Batch(rows, rows, rows.double(), number, number, {"door": number})


def loader(workers=0, seconds=0.0):
    return BatchLoader(Numbers(seconds), ResumableSampler(24, 4, seed=3), torch.device("cpu"), workers)


def numbers_of(epoch):
    return [batch.trajectory.tolist() for batch in epoch]


def test_order_and_contents_are_the_samplers_whatever_the_workers_and_wherever_an_epoch_begins():
    sampler = ResumableSampler(24, 4, seed=3)
    expected = []
    for number in (0, 1):
        sampler.set_epoch(number)
        expected.append(list(sampler))
    for workers in (0, 2):
        loading = loader(workers)
        # an epoch cut short (max_batches), the next one from its middle (a resumed run), and a whole one
        assert numbers_of(loading.epoch(0, 0, 4)) == expected[0][:4]
        assert numbers_of(loading.epoch(1, 2, 6)) == expected[1][2:]
        [first, *_] = loading.epoch(0, 0, 6)
        assert torch.equal(first.states[:, 0], first.trajectory.double())
        assert torch.equal(first.layouts["door"], first.trajectory)
        loading.close()


class BrokenFetch:
    """Stands for torch's loader whose worker ended while the fetch of a batch was under way."""

    def __iter__(self):
        raise ConnectionResetError(104, "Connection reset by peer")
        yield


def test_a_connection_that_breaks_is_a_reader_that_died():
    loading = loader()
    loading._loader = BrokenFetch()
    with (
        pytest.raises(ReaderError, match=r"^DataLoader worker .* fewer env\.num_workers .* resume=some/run"),
        one_line_if_a_reader_dies("some/run"),
    ):
        next(loading.epoch(0, 0, 2))


def test_a_lock_that_a_killed_worker_held_holds_up_no_end():
    """As if it had been killed while it asked whether work was over; torch's own ending would wait for its lock."""
    loading = loader(1)
    next(loading.epoch(0, 0, 4))
    iterator = loading._loader._iterator
    (worker,) = iterator._workers
    holder = threading.Thread(target=iterator._workers_done_event._cond.acquire)
    holder.start()
    holder.join()  # nobody else can release it now
    worker.kill()
    worker.join()

    def end(loading, iterator):
        loading.close()
        iterator.__del__()

    ending = threading.Thread(target=end, args=(loading, iterator), daemon=True)
    ending.start()
    ending.join(20)
    assert not ending.is_alive()


def test_workers_live_on_from_epoch_to_epoch():
    loading = loader(1)
    list(loading.epoch(0, 0, 2))
    workers = [worker.pid for worker in loading._loader._iterator._workers]
    list(loading.epoch(1, 0, 6))
    assert [worker.pid for worker in loading._loader._iterator._workers] == workers
    loading.close()


@pytest.mark.parametrize(("reading", "share", "whole"), [(0.1, 0.5, 0.5 / 1.1), (0.0, 0.0, 0.0)])
def test_the_share_of_waiting_is_measured(reading, share, whole, monkeypatch):
    """By a clock on which nothing but reading and computing takes time."""
    now, shares = [1.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    loading = loader(0, reading)
    for _ in loading.epoch(0, 0, 6):
        time.sleep(0.1)
        shares.append(loading.wait_share())
    assert shares == pytest.approx([share] * 6)
    assert loading.epoch_wait() == pytest.approx(whole)  # its first batch is left out


def test_a_worker_reads_while_the_training_computes():
    loading = loader(1, 0.03)
    for _ in loading.epoch(0, 0, 6):
        time.sleep(0.1)
    assert loading.epoch_wait() < 0.15  # 0.23 without the worker
    loading.close()


def test_a_training_that_waits_says_so_once_an_epoch_and_logs_the_share(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(loading_module, "SHORTEST_JUDGED", 0.0)
    training = build(tmp_path / "run", *STATE)
    read = training.train_data.__getitems__
    slow = type(training.train_data)
    monkeypatch.setattr(slow, "__getitems__", lambda self, numbers: (time.sleep(0.05), read(numbers))[1])
    with caplog.at_level(logging.INFO):
        training.fit()
    warnings = [record.message for record in caplog.records if "waiting for data" in record.message]
    assert len(warnings) == 2 and "set env.num_workers (now 0) to more" in warnings[0]
    assert "data_wait 0." in caplog.text
    text = (training.folder / "logs.json").read_text().splitlines()
    assert all('"data_wait"' in line for line in text)
    assert len(without_times(training.folder / "logs.json")) == 12


def test_how_many_workers_read_where_nobody_says():
    assert sensible_workers(torch.device("cpu")) == 0
    assert 0 <= sensible_workers(torch.device("cuda")) <= 8
    assert loader(None).num_workers == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_are_those_of_the_cpu():
    data, sampler = Numbers(), ResumableSampler(24, 4, seed=3)
    for workers in (0, 1):
        loading = BatchLoader(data, sampler, torch.device("cuda"), workers)
        found = []
        for batch in loading.epoch(0, 0, 6):
            assert batch.actions.is_cuda
            torch.cuda._sleep(10_000_000)  # the next copy is on its way meanwhile
            found.append(batch.trajectory)
        assert [rows.tolist() for rows in found] == numbers_of(loader().epoch(0, 0, 6))
        loading.close()
