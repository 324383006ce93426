"""What planning needs of the data that a model was trained on."""

from __future__ import annotations

import torch
from hydra.errors import InstantiationException
from torch import Tensor

from datasets.files import DatasetError
from datasets.trajectories import Trajectories
from datasets.units.normalizer import Normalizer
from envs.config import EnvConfig
from models.checkpoints.loading import stored_normalizer
from models.checkpoints.native import Checkpoint


class ModelData:
    """The data set, opened only if something needs it: its statistics or its validation trajectories."""

    def __init__(self, env: EnvConfig, checkpoint: Checkpoint) -> None:
        self.env, self.checkpoint = env, checkpoint
        self._opened: Trajectories | None = None

    def trajectories(self) -> Trajectories:
        """Open the data set, once.

        Raises:
            DatasetError: If it is not there, or broken.
            ValueError: If nothing says what it is.
        """
        if self._opened is None:
            try:
                self._opened = self.env.data.build()
            except InstantiationException as error:  # Hydra wraps what a class raises
                raise error.__cause__ if isinstance(error.__cause__, DatasetError) else error from None
        return self._opened

    def normalizer(self) -> Normalizer:
        """Return the units the model was trained in: stored in our checkpoints, the data set's for DINO-WM's.

        Raises:
            ValueError: If neither has them.
        """
        stored = stored_normalizer(self.checkpoint, self.env.sizes)
        if stored is not None:
            return stored
        try:
            return self.trajectories().normalizer
        except DatasetError as error:
            if not self.checkpoint.foreign:
                raise
            raise ValueError(
                f"{self.checkpoint.path} brings no statistics of actions and proprio, and no data set gives them "
                f"({error}): set foreign.statistics, or DATASET_DIR"
            ) from None

    def action_quantiles(self, wanted: tuple[float, float] | None) -> Tensor | None:
        """Return raw actions at evenly spaced quantiles of the training data; ends alone, if only these are ``wanted``.

        Raises:
            ValueError: If neither the model nor a data set says what is wanted.
        """
        if wanted is None:
            return None
        about = self.checkpoint.about
        stored = about.get("action_quantiles") or (about.get("action_range") if wanted == (0, 1) else None)
        if stored is not None:
            return torch.tensor(stored)
        try:
            return self.trajectories().action_quantiles()
        except DatasetError as error:
            raise ValueError(
                f"planner.clip_actions needs {'the range' if wanted == (0, 1) else 'quantiles'} of the data set's "
                f"actions, which this model was saved without, and no data set gives them ({error}): set "
                "planner.clip_actions=false, or DATASET_DIR"
            ) from None

    def validation(self) -> tuple[Trajectories, list[int]]:
        """Return the trajectories, and which of them the model was not trained on."""
        trajectories = self.trajectories()
        numbers = self.checkpoint.about.get("validation")
        if numbers is None:
            numbers = trajectories.train_val()[1].tolist()
        if max(numbers) >= len(trajectories):
            raise ValueError(
                f"the model was trained on a data set with a validation trajectory number {max(numbers)}, this one has "
                f"{len(trajectories)} trajectories: use the data it was trained on, or goal_source=random_state"
            )
        return trajectories, numbers
