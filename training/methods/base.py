"""A method is hooks on the one training loop: what to train on besides the data set, and which loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from datasets.batch import Batch
from envs.base import VectorEnv
from models.latent import Latent
from models.world_model import PredictionLoss, Windows, WorldModel
from planning.observer import Observer
from training.methods.replay_buffer import ReplayBuffer
from training.numbered_windows import NumberedWindows
from utils import distributed
from utils.retry import Retry


@dataclass(frozen=True)
class TrainingContext:
    """What a method may use.

    Attributes:
        model: The network in training.
        observer: Encodes simulator output in the units of the training data.
        env: A simulator of the data's environment, or None for methods that do not ask for one.
        frameskip: Raw steps of an action block.
        seed: Of the method's own random generators.
        folder: Where it may keep files of this run.
        retry: What to do when a disk does not take them.
        batch_size: Samples of a step, of all processes together; None: those of the batch, as in one process.
        sample_frames: Model frames of a training sample, N + num_hist; None: as many as the method wants.
    """

    model: WorldModel
    observer: Observer
    env: VectorEnv | None
    frameskip: int
    seed: int
    folder: Path
    retry: Retry = field(default_factory=Retry)
    batch_size: int | None = None
    sample_frames: int | None = None


class Method:
    """Plain teacher forcing on the data set, and what a method may do otherwise.

    Two hooks make most methods: ``windows`` says what to train on, ``loss`` what is minimised there. A method whose
    loss does not come from teacher-forcing windows overrides ``losses`` in their place. The other hooks are for what
    such a method needs besides: ``setup``, ``updated``, ``validate``, ``state_dict``, ``load_state_dict``, ``close``.

    Attributes:
        name: As in ``method=<name>``.
        needs_env: Whether ``TrainingContext.env`` must be there.
        trains_dynamics: Whether it trains predictor and encoders; else it trains the proposal only.
        finetunes: Whether it is meant for a trained model, so that a ``ckpt_path`` without one is an error.
        period: Steps from one costly one to the next; what so many take is what all take on average.
        replay: Corrected trajectories that it keeps on the disk, if it does.
        context: What ``setup`` was given.
    """

    name = "offline"
    needs_env = False
    trains_dynamics = True
    finetunes = False
    period = 1
    replay: ReplayBuffer | None = None
    context: TrainingContext

    def __init__(self) -> None:
        """Take no settings."""

    def setup(self, context: TrainingContext) -> None:
        """Get ready; called once, before the first step and before anything that takes long.

        Raises:
            ValueError: If model, samples or simulator do not suit the method.
        """
        self.context = context

    def losses(self, batch: Batch, latent: Latent, position: int) -> dict[str, Tensor]:
        """Losses of a step, scalars by the name in the log: "loss" is minimised, the others are parts of it.

        Of several processes each gives what its own samples contribute to the mean over all samples: their sum over
        processes is what one process would give for all.

        Args:
            batch: Of the data set.
            latent: (B, F) of its frames.
            position: Number of the batch in its epoch, from 0.
        """
        expert = self.context.model.windows(latent, batch.actions)
        expert = NumberedWindows.of(expert, self._share(batch))
        windows = NumberedWindows.of(self.windows(expert, batch, latent, position))
        loss, part = self.loss(windows), len(windows) / windows.total
        return {"loss": loss.total * part, "visual_loss": loss.visual * part, "proprio_loss": loss.proprio * part}

    def windows(self, expert: Windows, batch: Batch, latent: Latent, position: int) -> Windows:
        """What to train on at this step.

        Args:
            expert: Windows of the data set batch.
            batch: That batch.
            latent: (B, F) of its frames.
            position: Number of the batch in its epoch, from 0.
        """
        return expert

    def loss(self, windows: Windows) -> PredictionLoss:
        """The prediction loss of the model on ``windows``."""
        return self.context.model.teacher_forcing_loss(windows)

    def updated(self) -> dict[str, float]:
        """Called after every update of the weights, in the arithmetic of the step.

        Returns:
            Numbers for the log besides the losses.
        """
        return {}

    def validate(self, batches: Iterable[Batch], latents: Callable[[Batch], Latent]) -> dict[str, float]:
        """Losses of an epoch's end, by the name in the log, besides those of the dynamics.

        Args:
            batches: Of the validation data.
            latents: Gives those (B, F) of a batch's frames.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as plain containers and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""

    def close(self) -> None:
        """Release what it started; called once after training, however it ended."""

    def _share(self, batch: Batch) -> distributed.Share:
        """Where the samples of ``batch`` lie in the batch of all processes."""
        return distributed.share_of_batch(len(batch), self.context.batch_size)

    def _refuse_short_samples(self, context: TrainingContext, blocks: int, setting: str) -> None:
        """Raise unless a sample has a goal so many ``blocks`` ahead, as the ``setting`` says."""
        given, hist = context.sample_frames, context.model.num_hist
        if given is not None and given <= blocks:
            raise ValueError(
                f"N={given - hist}: a sample of N + num_hist = {given} frames is shorter than the {blocks + 1} that "
                f"method={self.name} needs for goals {blocks} blocks ahead; set N to at least {blocks + 1 - hist}, or "
                f"lower {setting}"
            )
