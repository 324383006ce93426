"""A method is hooks on the one training loop: what to train on besides the data set, and which loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.batch import Batch
from envs.base import VectorEnv
from models.latent import cat_latents
from models.world_model import PredictionLoss, Windows, WorldModel
from planning.observer import Observer
from utils import distributed
from utils.retry import Retry


@dataclass(frozen=True)
class TrainingContext:
    """What a method may use.

    Attributes:
        model: the network in training.
        observer: encodes simulator output in the units of the training data.
        env: a simulator of the data's environment, or None for methods that do not ask for one.
        frameskip: raw steps of an action block.
        seed: of the method's own random generators.
        folder: where it may keep files of this run.
        retry: while a disk does not take them.
        batch_size: samples of a step, of all processes together; None: those of the batch, as in one process.
    """

    model: WorldModel
    observer: Observer
    env: VectorEnv | None
    frameskip: int
    seed: int
    folder: Path
    retry: Retry = field(default_factory=Retry)
    batch_size: int | None = None


class Method:
    """Plain teacher forcing on the data set; finetuning methods override ``windows`` or ``loss``, or both.

    A method whose loss does not come from teacher-forcing windows overrides ``losses`` instead.

    Attributes:
        name: as in ``method=<name>``. needs_env: whether ``TrainingContext.env`` must be there.
        trains_dynamics: whether it trains predictor and encoders; else it trains the initialisation network only.
        finetunes: whether it is meant for a trained model, so that a ``ckpt_path`` without one is an error.
        min_sample_frames: model frames that a training sample must span at least.
    """

    name = "offline"
    needs_env = False
    trains_dynamics = True
    finetunes = False

    context: TrainingContext

    def __init__(self) -> None:
        """Take no settings."""

    @property
    def min_sample_frames(self) -> int:
        """A window and its target need num_hist + 1 frames, which every sample has."""
        return 2

    @property
    def min_windows(self) -> int:
        """Consecutive windows (N) that a training sample must have at least."""
        return 1

    def attach(self, model: WorldModel) -> None:
        """Called once the model is known, before the data are looked at."""

    def setup(self, context: TrainingContext) -> None:
        """Called once before training."""
        self.context = context

    def losses(self, batch: Batch, features: Tensor, position: int) -> dict[str, Tensor]:
        """Losses of a step, scalars by the name in the log: "loss" is minimised, the others are parts of it.

        Of several processes each gives what its own samples contribute to the mean over all samples: their sum over
        processes is what one process would give for all.

        Args:
            batch: of the data set; features: (B, F, P, D) its encoded frames.
            position: number of the batch in its epoch, from 0.
        """
        model = self.context.model
        expert = model.windows(model.embed(features, batch.proprio), batch.actions)
        windows = self.windows(_numbered(expert, self._share(batch)), batch, features, position)
        loss, part = self.loss(windows), len(windows) / (windows.total or len(windows))
        return {"loss": loss.total * part, "visual_loss": loss.visual * part, "proprio_loss": loss.proprio * part}

    def windows(self, expert: Windows, batch: Batch, features: Tensor, position: int) -> Windows:
        """What to train on at this step.

        Args:
            expert: windows of the data set batch.
            batch: that batch; features: (B, F, P, D) its encoded frames.
            position: number of the batch in its epoch, from 0.
        """
        return expert

    def loss(self, windows: Windows) -> PredictionLoss:
        """The prediction loss of the model on ``windows``."""
        model = self.context.model
        return model.prediction_loss(
            model.predict_tokens(model.tokens(windows.source, windows.actions)), windows.target
        )

    def updated(self) -> None:
        """Called after every update of the weights, in the arithmetic of the step."""

    def validate(self, batches: Iterable[Batch], features: Callable[[Batch], Tensor]) -> dict[str, float]:
        """Losses of an epoch's end, by the name in the log, besides those of the dynamics.

        Args:
            batches: of the validation data. features: gives the encoded frames (B, F, P, D) of a batch.
        """
        return {}

    def close(self) -> None:
        """Called once after training, however it ended."""
        if self.context.env is not None:
            self.context.env.close()

    def report(self) -> dict[str, float]:
        """Numbers for the log besides the losses."""
        return {}

    @property
    def period(self) -> int:
        """Steps from one costly one to the next; what so many take is what all take on average."""
        return 1

    def kept_bytes(self, steps: int) -> int:
        """What it will keep in memory, and on the disk, after so many steps; judged by what it keeps now."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as plain containers and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""

    def committed(self) -> None:
        """A training state that holds ``state_dict`` is safely on disk; what only older states needed may go."""

    def _share(self, batch: Batch) -> distributed.Share:
        """Where the samples of ``batch`` lie in the batch of all processes."""
        return distributed.share_of_batch(len(batch), self.context.batch_size)


def _numbered(expert: Windows, share: distributed.Share) -> Windows:
    """The same, with the numbers that the windows have among those of all processes: by sample, then by time."""
    each = len(expert) // share.count
    return replace(expert, numbers=torch.arange(len(expert)) + share.first * each, total=share.total * each)


def cat_windows(first: Windows, second: Windows) -> Windows:
    """Both, one after the other; ``second`` is numbered after all of ``first``."""
    (numbers, total), (further, further_total) = numbering(first), numbering(second)
    return Windows(
        cat_latents([first.source, second.source], 0),
        torch.cat([first.actions, second.actions]),
        cat_latents([first.target, second.target], 0),
        torch.cat([numbers, total + further]),
        total + further_total,
    )


def numbering(windows: Windows) -> tuple[Tensor, int]:
    """``numbers`` and ``total`` of windows that may have been left to the default."""
    numbers = torch.arange(len(windows)) if windows.numbers is None else windows.numbers
    return numbers, len(windows) if windows.total is None else windows.total
