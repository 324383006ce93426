import os
import signal
import threading

import pytest

from utils.interrupts import JOB_SIGNALS, StopRequested, StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_asks(number):
    with StopSignals() as stop:
        stop.raise_if_received()
        os.kill(os.getpid(), number)
        finished = True
        with pytest.raises(StopRequested) as stopped:
            stop.raise_if_received()
    assert finished
    assert stopped.value.code == 128 + number
    assert stop.received == number


def test_the_second_signal_acts_as_usual():
    with StopSignals(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    with pytest.raises(RuntimeError), StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_threads_are_served_without_signals():
    seen = []

    def work():
        with StopSignals() as stop:
            stop.raise_if_received()
            seen.append(stop.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


def test_in_a_slurm_job_a_signal_that_comes_again_does_no_harm(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    before = {number: signal.getsignal(number) for number in JOB_SIGNALS}
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.received == signal.SIGUSR2
        os.kill(os.getpid(), signal.SIGUSR2)  # while the end is written down
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
