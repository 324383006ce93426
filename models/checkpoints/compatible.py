"""What other programs compute, held against a model before it is written for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.architecture import Architecture
from models.foreign.inert_pickle import CheckpointError

DINO_V2 = "models.networks.dinov2.DinoV2Encoder"
ORIGINAL = {
    "encoder": {"_target_": DINO_V2, "pixels": "half", "pixels_per_patch": 16, "positions": "official"},
    "predictor": {"_target_": "models.networks.vit.ViTPredictor", "norm_eps": 1e-5},
    "proprio_encoder": {"_target_": "models.networks.proprio.ProprioceptiveEmbedding", "use_layernorm": False},
    "action_encoder": {"_target_": "models.networks.proprio.ProprioceptiveEmbedding", "use_layernorm": False},
}
"""What DINO-WM computes; a setting that a model does not have is as here."""
STABLE = ORIGINAL | {
    "encoder": {"_target_": DINO_V2, "pixels": "imagenet", "pixels_per_patch": 14, "positions": "transformers"}
}
"""What stable-worldmodel's PreJEPA computes."""


def check_computes(architecture: Architecture, theirs: Mapping[str, Mapping[str, Any]], program: str) -> None:
    """Refuse a model of which ``program`` would compute something else.

    Raises:
        CheckpointError: Naming the first setting that differs.
    """
    if architecture.projector is not None:
        raise CheckpointError(f"this model has a projector, and {program} knows none")
    for part, settings in theirs.items():
        ours = getattr(architecture, part).settings
        for key, value in settings.items():
            if (has := ours.get(key, ORIGINAL[part].get(key))) != value:
                raise CheckpointError(f"{program} computes with {part}.{key}={value}, this model with {has}")
    if architecture.proprio_per_patch:
        raise CheckpointError(f"{program}'s costs see the proprio of a frame's first patch, this model's that of all")
