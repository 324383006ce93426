"""What a world model is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import nn

from models.interfaces import Decoder, Encoder, Predictor, Projector, Proposal
from utils.schema import Component

PARTS = ("encoder", "proprio_encoder", "action_encoder", "predictor", "decoder")
"""Attributes of ``WorldModel`` that are networks; each is also a config group."""

OPTIONAL = ("proposal", "projector")
"""The same, of networks that most models do not have."""

BEHIND_PROJECTOR = ("predictor", "decoder", "proposal")
"""Parts whose sizes follow from what a projector makes of the encoder's features."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes and networks of a world model; a checkpoint brings them in its ``hydra.yaml``, each under its name."""

    num_hist: int
    num_pred: int
    frameskip: int
    img_size: int
    concat_dim: int
    action_emb_dim: int
    proprio_emb_dim: int
    num_action_repeat: int
    num_proprio_repeat: int
    has_predictor: bool
    has_decoder: bool
    proprio_per_patch: bool = False
    encoder: Component[Encoder]
    predictor: Component[Predictor]
    decoder: Component[Decoder]
    action_encoder: Component[nn.Module]
    proprio_encoder: Component[nn.Module]
    proposal: Component[Proposal] | None = None
    projector: Component[Projector] | None = None

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Architecture:
        """Pick the architecture out of plain data, in which parts are dicts with ``_target_`` and arguments.

        Raises:
            ValueError: If a key is missing.
        """
        missing = [key for key in (*SCALARS, *PARTS) if key not in settings and key not in DEFAULTS]
        if missing:
            raise ValueError(f"the architecture lacks {', '.join(missing)}")
        values: dict[str, Any] = {key: settings.get(key, DEFAULTS.get(key)) for key in SCALARS}
        present = [part for part in (*PARTS, *OPTIONAL) if settings.get(part) is not None]
        return cls(**values | {part: Component(settings[part]) for part in present})

    def as_dict(self) -> dict[str, Any]:
        """Give what ``from_dict`` takes; without the key of an optional part that there is not."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {key: value.settings if isinstance(value, Component) else value for key, value in values.items()}
        return {key: value for key, value in plain.items() if value is not None}

    def with_arguments(self, part: str, **arguments: Any) -> Architecture:
        """Return the same, but for some arguments of one part."""
        changed: Component[Any] = Component({**getattr(self, part).settings, **arguments})
        return replace(self, **dict[str, Any]({part: changed}))


SCALARS = tuple(field.name for field in fields(Architecture) if field.name not in (*PARTS, *OPTIONAL))
"""Names beside the parts."""

DEFAULTS = {"proprio_per_patch": False}
"""Those that older files leave out."""
