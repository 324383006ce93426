"""The state of a training run, complete enough to continue it bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from utils.files import atomic_path
from utils.tensor_files import write_torch

FILENAME = "training_state.pt"


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write ``checkpoints/training_state.pt`` atomically; plain containers and tensors only."""
    complete = state | {"rng": _rng_state()}
    with atomic_path(folder / "checkpoints" / FILENAME) as temporary:
        write_torch(temporary, complete)


def read_state(folder: Path) -> dict[str, Any] | None:
    """Read what ``write_state`` wrote and put the global random generators back; None if there is nothing yet.

    Raises:
        ValueError: If the file is broken; the message says what to do.
    """
    path = folder / "checkpoints" / FILENAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        _restore_rng(state.pop("rng"))
    except Exception as error:  # damaged files fail in many ways (zip, pickle, storage sizes); all mean the same here
        raise broken_state(folder, error) from None
    return state


def broken_state(folder: Path, error: Exception) -> ValueError:
    """What to raise where the state of a run in ``folder`` cannot be read or taken over."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(
        f"cannot resume: {folder / 'checkpoints' / FILENAME} is broken ({reason}); start a new run from the weights "
        f"beside it, ckpt_path={folder}"
    )


def _rng_state() -> dict[str, Any]:
    """torch's global generators, which dropout draws from; everything else here has a generator of its own."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _restore_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
