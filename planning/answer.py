"""What an agent thought when it answered: its plan, what it imagined, and how well it understands what it sees."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.adapted import Weights, adapted_model
from models.latent import Latent
from models.world_model import WorldModel
from planning.adaptation import prediction_errors
from planning.request import Decision
from utils.pictures import to_uint8

Array = NDArray[Any]
SMALLEST = 1e-12  # what an error is divided by at least


class Surprise(NamedTuple):
    """The model's error at what it sees now, predicted from what it saw before and the actions in between.

    Attributes:
        error: Mean squared error of that one step over the latent's entries, (B,) or a number.
        usual: What it is compared with, likewise.
        compared_with: "validation": the model's own error on its validation data; "change": how far the frame is from
            the one before, the error of a model in which nothing ever moves.
    """

    error: Array
    usual: Array
    compared_with: str

    @property
    def ratio(self) -> Array:
        """Error by usual error: of "validation" 1 is normal; of "change" 1 is no better than if nothing ever moved."""
        return self.error / np.maximum(self.usual, SMALLEST)


class Experience(NamedTuple):
    """One step that was lived through.

    Attributes:
        model: That predicts.
        frames: (B, F + 1) latents, the present last.
        actions: (B, F, A) z-scored blocks executed between them.
        adapted: Weights that each row has for itself by then, see ``planning.adaptation``.
    """

    model: WorldModel
    frames: Latent
    actions: Tensor
    adapted: Weights


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One call of ``Agent.act``. Arrays lead with the batch if the images did.

    What is imagined is computed when it is first asked for, on nobody's clock.

    Attributes:
        actions: (frameskip, action_dim) raw actions that were returned.
        plan: (T * frameskip, action_dim) the plan that they are from, whole and not clipped.
        replanned: Whether it was made in this call; else it is that of an earlier one.
        cost_before: Cost of what the search began with; NaN where it did not evaluate that.
        cost_after: Cost of the plan.
        evaluations: Rollouts imagined by the search for the plan.
        encoding_seconds: From the call to where the images were encoded.
        seconds: The whole call.
        late: Whether that is longer than the budget.
    """

    actions: Array
    plan: Array
    replanned: bool
    cost_before: Array
    cost_after: Array
    evaluations: Array
    encoding_seconds: float
    seconds: float
    late: bool
    _decision: Decision = field(repr=False)
    _experience: Experience | None = field(repr=False)
    _usual: float | None = field(repr=False)
    _one: Callable[[Any], Array] = field(repr=False)
    _arithmetic: Callable[[], contextlib.AbstractContextManager[object]] = field(repr=False)

    @cached_property
    def imagined(self) -> Latent:
        """Latents (B, T + 1) that the plan is imagined to lead through, from the present that it was made in."""
        with self._arithmetic(), torch.no_grad():
            return self._decision.request.cost.imagine(self._decision.plan.actions)

    @cached_property
    def frames(self) -> Array | None:
        """What ``imagined`` looks like: images (T + 1, S, S, 3) uint8; None for a model without a decoder."""
        model = self._decision.request.observer.model
        if model.decoder is None:
            return None
        with self._arithmetic(), torch.no_grad():
            return self._one(to_uint8((model.decode(self.imagined) + 1) * 127.5))

    @cached_property
    def surprise(self) -> Surprise | None:
        """How far what was seen is from what the model predicted; None at the first image of an episode."""
        if self._experience is None:
            return None
        model, frames, actions, adapted = self._experience
        with self._arithmetic(), torch.no_grad():
            predicts = adapted_model(model, adapted) if adapted else model
            error = prediction_errors(predicts, frames, actions, 1)
            change = _change(model, frames[:, -2:])
        usual = change if self._usual is None else torch.full_like(change, self._usual)
        return Surprise(self._one(error), self._one(usual), "change" if self._usual is None else "validation")

    def __str__(self) -> str:
        """Say it in a line, of a batch the means."""
        costs = " -> ".join(f"{float(np.mean(cost)):.3g}" for cost in (self.cost_before, self.cost_after))
        surprise = "" if self.surprise is None else (
            f", surprise {float(np.mean(self.surprise.ratio)):.2g} x {self.surprise.compared_with}"
        )  # fmt: skip
        made = f"cost {costs} in {int(np.max(self.evaluations))} rollouts" if self.replanned else "from the last plan"
        return f"{1000 * self.seconds:.0f} ms{' LATE' if self.late else ''}, {made}{surprise}"


def _change(model: WorldModel, frames: Latent) -> Tensor:
    """Mean squared change (B,) from the first to the second of two frames (B, 2), in the units of prediction errors."""
    nothing = frames.proprio.new_zeros(frames.batch_size, 2, model.layout.action_dim)
    seen = model.layout.state_part(model.layout.assemble(frames, nothing))
    return (seen[:, 1] - seen[:, 0]).float().square().flatten(1).mean(1)
