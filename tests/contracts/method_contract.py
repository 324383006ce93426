"""What every method must do, as checks of a short training with it; see ``training.methods.base.Method``."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.training.resuming import assert_same_run, interrupt
from tests.training.tiny import changed, weights
from training.trainer import Trainer

MakeTrainer = Callable[[Path], Trainer]
"""Makes the trainer of a run in a folder: two steps at least, each of them saved."""
BRIEF = {"opt_steps": 2, "replay_buffer_frequency": 1}


def brief(settings: Any) -> Any:
    """The settings of a method with few steps of any planner in it, and something new in every batch."""
    if not isinstance(settings, Mapping):
        return settings
    return {key: BRIEF.get(key, brief(value)) for key, value in settings.items()}


@dataclass(frozen=True)
class Watched:
    """An uninterrupted run.

    Attributes:
        trainer: After its end.
        losses: What the method gave at each step.
        before: The model's tensors before the first step.
        after: The same after the last one.
        drew: Whether Python's or NumPy's global generators, which no resumed run finds as they were, were used.
    """

    trainer: Trainer
    losses: list[dict[str, Tensor]]
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    drew: bool


def unsaved_generators() -> bytes:
    """Where Python's and NumPy's global generators are, which no saved run brings back."""
    return pickle.dumps((random.getstate(), np.random.get_state()))  # noqa: NPY002


def watch(make: MakeTrainer, folder: Path) -> Watched:
    """Train, and look at what the method says."""
    torch.manual_seed(0)
    trainer, seen = make(folder), []
    losses, before = trainer.method.losses, weights(trainer.model)

    def watched(*arguments: Any) -> dict[str, Tensor]:
        found = losses(*arguments)
        assert "loss" in found, f'losses() gives what is minimised as "loss", got {sorted(found)}'
        for name, value in found.items():
            assert value.shape == () and value.isfinite(), f"losses are finite scalars, got {name}={value}"
        seen.append({name: value.detach() for name, value in found.items()})
        return found

    trainer.method.losses = watched
    generators = unsaved_generators()
    trainer.fit()
    trainer.close()
    drew = unsaved_generators() != generators
    return Watched(trainer, seen, before, weights(trainer.model), drew)


def check_losses(make: MakeTrainer, folder: Path) -> None:
    """Every step has the same finite losses, one of them named "loss", and the weights follow it."""
    run = watch(make, folder / "watched")
    assert len(run.losses) >= 2 and len({tuple(found) for found in run.losses}) == 1, "steps have the same losses"
    assert not run.drew, "a method draws from a generator of its own, which state_dict holds, or from torch's"
    part = "predictor" if run.trainer.method.trains_dynamics else "proposal"
    assert part in (moved := changed(run.before, run.after)), (
        f"training changes the weights of the {part}, it changed those of {sorted(moved) or 'nothing'}: "
        '"loss" must carry gradients'
    )


def check_resuming(make: MakeTrainer, folder: Path) -> None:
    """Interrupted and resumed, a run ends bit for bit as it does undisturbed."""
    torch.manual_seed(0)
    whole, cut = make(folder / "whole"), folder / "cut"
    whole.fit()
    whole.close()
    torch.manual_seed(0)
    assert interrupt(make(cut), 1), "there are two steps at least"
    torch.manual_seed(5)  # another process has another state
    resumed = make(cut)
    resumed.fit()
    resumed.close()
    differing = sorted(changed(weights(whole.model), weights(resumed.model)))
    assert not differing, (
        f"interrupted and resumed, a run ends with other weights of {', '.join(differing)}: state_dict must hold all "
        "that a method draws from or remembers, and load_state_dict bring it back"
    )
    assert_same_run(cut, folder / "whole")


CHECKS = (check_losses, check_resuming)
