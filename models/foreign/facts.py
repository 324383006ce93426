"""What files of other programs do not say of a model, for the user to say."""

from __future__ import annotations

from dataclasses import dataclass

from utils.ranges import Side, Small
from utils.schema import Settings


@dataclass(frozen=True, kw_only=True)
class Facts(Settings):
    """The group ``foreign``. None is what the file says, or what is known of a published model of its name.

    Attributes:
        heads: Attention heads of the predictor; tensors show only heads times their width.
        img_size: Side of the images, pixels.
        num_hist: Frames that the predictor sees at once.
        frameskip: Raw actions in a block.
        statistics: JSON file of the means and standard deviations of raw actions and proprio,
            ``{"action": {"mean": [...], "std": [...]}, "proprio": {...}}``; without any, those of the data set.
    """

    heads: Small | None = None
    img_size: Side | None = None
    num_hist: Small | None = None
    frameskip: Small | None = None
    statistics: str | None = None
