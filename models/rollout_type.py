"""The options of ``rollout_type``: how a rollout goes on from what it has imagined."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RolloutType:
    """A kind of rollout: what the predictor gets to see at each step.

    Attributes:
        num_context: Frames, the newest last; None is all that the model was trained with, ``num_hist``.
        tiles_proprio: Whether an imagined frame gets the proprio of its first patch in every patch, before it is seen
            again. Otherwise it is seen as it was predicted, where the patches differ a little.
    """

    num_context: int | None = None
    tiles_proprio: bool = False


ROLLOUT_TYPES = {
    "regular": RolloutType(),
    "custom": RolloutType(num_context=1),
    "custom_as_released": RolloutType(num_context=1, tiles_proprio=True),
}
"""``custom_as_released`` repeats a quirk of the earlier release, whose ``custom`` rollout tiled the proprio while its
``regular`` one did not, so that the two differed even for models of one frame; it is there to repeat its numbers."""
