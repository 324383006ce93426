"""The GPU that a member of a local sweep gets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch


@contextlib.contextmanager
def one_gpu(device: str | None) -> Iterator[dict[str, str]]:
    """Variables that show a process one GPU, on a machine with several: one that no other member has, if there is one.

    Members beyond the number of GPUs share the last. In a SLURM job, and for a device named with its number, nothing
    is changed. The GPU is given back when the block, or this process, ends.

    Args:
        device: As in the configuration.
    """
    count = torch.cuda.device_count()
    if count < 2 or device not in ("auto", "cuda") or "SLURM_STEP_ID" in os.environ:
        yield {}
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    with contextlib.ExitStack() as stack:
        for name in names[:count]:
            path = Path(tempfile.gettempdir()) / f"world-models-{os.getuid()}-gpu-{name}.lock"
            # in a folder of everybody's, a link may wait in its place
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            stack.callback(os.close, file)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        yield {"CUDA_VISIBLE_DEVICES": name}
