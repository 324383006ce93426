"""The state of a training run, complete enough to continue it bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils import distributed
from utils.moved_settings import current_tensor
from utils.reading.opening import failure_reason
from utils.reading.torch_file import read_torch
from utils.retry import Retry
from utils.tensor_files import write_torch

FILENAME = "training_state.pt"


def random_state() -> dict[str, Any]:
    """torch's global generators in all processes, which must all call this; part of what ``write_state`` needs."""
    rng, *others = distributed.gather(_rng_state())
    return {"rng": rng} | ({"others_rng": others} if others else {})


def write_state(folder: Path, state: dict[str, Any], retry: Retry | None = None) -> None:
    """Write ``checkpoints/training_state.pt`` atomically; plain containers and tensors only."""
    write_torch(folder / "checkpoints" / FILENAME, state, retry)


def read_state(folder: Path) -> dict[str, Any] | None:
    """Read what ``write_state`` wrote and put the global random generators back; None if there is nothing yet.

    Raises:
        ValueError: If the file is broken; the message says what to do.
    """
    path = folder / "checkpoints" / FILENAME
    if not path.exists():
        return None
    try:
        state = read_torch(path)
        for kept in ("model", "optimizers"):
            if isinstance(state.get(kept), dict):
                state[kept] = {current_tensor(name): value for name, value in state[kept].items()}
        _restore_rngs(state.pop("rng"), state.pop("others_rng", []))
    except Exception as error:  # damaged files fail in many ways (zip, pickle, storage sizes); all mean the same here
        raise broken_state(folder, error) from None
    return state


def broken_state(folder: Path, error: Exception) -> ValueError:
    """What to raise where the state of a run in ``folder`` cannot be read or taken over."""
    return ValueError(
        f"cannot resume: {folder / 'checkpoints' / FILENAME} is broken ({failure_reason(error)}); start a new run "
        f"from the weights beside it, ckpt_path={folder}"
    )


def own_seed(seed: int) -> int:
    """A seed for this process's dropout: that of the main one is ``seed``."""
    if distributed.is_main():
        return seed
    return int(np.random.SeedSequence((seed, distributed.rank())).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _rng_state() -> dict[str, Any]:
    """torch's global generators, which dropout draws from; everything else here has a generator of its own."""
    if not torch.cuda.is_available():
        return {"cpu": torch.get_rng_state(), "cuda": []}
    # of several processes each has a GPU of its own
    cuda = torch.cuda.get_rng_state_all() if distributed.size() == 1 else [torch.cuda.get_rng_state()]
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _restore_rngs(main: dict[str, Any], others: list[dict[str, Any]]) -> None:
    """Restore this process's generators; with another number of processes, others derive theirs from the main one."""
    saved = [main, *others]
    if len(saved) == distributed.size():
        _restore_rng(saved[distributed.rank()])
        return
    _restore_rng(main)
    if not distributed.is_main():
        torch.manual_seed(own_seed(int(torch.randint(2**31, ()))))


def _restore_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if not state["cuda"] or not torch.cuda.is_available():
        return
    if distributed.size() == 1 and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    else:
        torch.cuda.set_rng_state(state["cuda"][0])
