"""The peak memory of one piece of work, not of everything that ran before it."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

RESET_PEAK = "5"  # what Linux takes as "forget the largest resident size so far"


def peak_gb(run: Callable[[], object], device: torch.device) -> float:
    """Run it once; returns the peak in GiB.

    On a GPU that of torch's allocator, weights included. On a CPU the largest resident size of this process, with
    Python, torch and the weights (about half a GiB), after everything that earlier work left has been given back.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) / 2**30
    _give_back()
    if _forget_peak():
        run()
        return _status("VmHWM") / 2**20
    return _sampled(run)


def _give_back() -> None:
    """Ask the C library to return free memory; without glibc the number is a little too high."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


def _forget_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="ascii")
        return _status("VmHWM") < 1.2 * _status("VmRSS")
    except OSError:
        return False


def _status(key: str) -> float:
    """KiB of a line of the process's status; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in lines if line.startswith(key + ":")), 0.0)


def _sampled(run: Callable[[], object], every: float = 0.005) -> float:
    """Where the peak cannot be reset: look at the resident size every few milliseconds."""
    peak, done = _status("VmRSS"), threading.Event()

    def look() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, _status("VmRSS"))
            time.sleep(every)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        run()
    finally:
        done.set()
        thread.join()
    return peak / 2**20
