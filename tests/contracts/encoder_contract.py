"""What every encoder must do, as checks of one and the shape of what it observes; see ``models.interfaces.Encoder``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.architecture import Architecture
from models.build import build_world_model
from models.checkpoints.loading import EncoderConfig, load_for_planning
from models.checkpoints.native import read_checkpoint, write_model_config
from models.checkpoints.own_file import write_checkpoint
from models.interfaces import Encoder
from models.world_model import WorldModel
from tests.builders import near, numbers
from utils.env_sizes import EnvSizes

SIZES = EnvSizes(env_action_dim=2, proprio_dim=2, state_dim=2)
Shape = tuple[int, ...]
"""Of an observation: (3, S, S) of an image, (state_dim,) of a state."""


def model_of(config: Mapping[str, Any]) -> WorldModel:
    """A world model with the encoder of a config, which has looked at some frames."""
    torch.manual_seed(0)
    model = build_world_model(Architecture.from_dict(config), *SIZES).eval()
    model.encoder.calibrate(observed(shape_of(model.encoder, config["img_size"]), 8, seed=1))
    return model


def shape_of(encoder: Encoder, size: int) -> Shape:
    """What it observes of a frame."""
    assert isinstance(encoder, Encoder), f"an encoder derives from models.interfaces.Encoder, not {type(encoder)}"
    assert encoder.observes in ("visual", "state"), f'observes is "visual" or "state", got {encoder.observes!r}'
    return (3, size, size) if encoder.observes == "visual" else (SIZES.state_dim,)


def observed(shape: Shape, *leading: int, seed: int = 0) -> Tensor:
    """Frames as a simulator gives them: images uint8 in 0..255, with edges; states z-scored."""
    if len(shape) == 1:
        return numbers(*leading, *shape, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (*leading, 3, 8, 8), dtype=torch.uint8, generator=generator)
    picked = torch.arange(shape[1]) * 8 // shape[1]
    return coarse[..., picked, :][..., picked]


@torch.no_grad()
def check_sizes(encoder: Encoder, shape: Shape) -> None:
    """Features are finite (..., P, D) as the attributes say, whatever the leading dimensions."""
    seen = observed(shape, 6)
    features = encoder(seen)
    expected = (6, encoder.num_patches, encoder.emb_dim)
    assert features.shape == expected, f"features are (..., num_patches, emb_dim)={expected}, got {features.shape}"
    grid = encoder.grid or (encoder.num_patches,)
    assert math.prod(grid) == encoder.num_patches, f"the grid {grid} has num_patches={encoder.num_patches} places"
    assert features.is_floating_point() and features.isfinite().all(), "features are finite floats"
    for leading in ((2, 3), (1, 3, 2)):
        again = encoder(seen.unflatten(0, leading))
        assert again.shape == (*leading, *expected[1:]), f"leading dimensions {leading} stay, got {again.shape}"
        near(again.flatten(0, -3), features)


@torch.no_grad()
def check_repeats(encoder: Encoder, shape: Shape) -> None:
    """A frame has the same features again, and alone."""
    seen = observed(shape, 3)
    features = encoder(seen)
    assert torch.equal(encoder(seen), features), "in eval mode the same frames have the same features: nothing is drawn"
    for row in range(3):
        alone = encoder(seen[row : row + 1])[0]
        difference = (alone - features[row]).abs().max()
        assert difference <= 1e-4 * features.abs().max(), (
            f"a frame's features must not depend on those beside it, alone they differ by {difference:.2g}"
        )


@torch.no_grad()
def check_values(encoder: Encoder, shape: Shape) -> None:
    """Frames that differ have features that differ; images come as uint8 or float, from black to white."""
    seen = observed(shape, 2)
    features = encoder(seen)
    assert not torch.allclose(features[0], features[1]), "frames that differ have features that differ"
    if len(shape) == 3:
        near(encoder(seen.float()), features)
        for value in (0, 255):
            assert encoder(torch.full_like(seen, value)).isfinite().all(), f"images may be {value} everywhere"


CHECKS = (check_sizes, check_repeats, check_values)
"""All that take an encoder and a shape; ``check_model`` and ``check_checkpoint`` take a world model."""


@torch.no_grad()
def check_model(model: WorldModel, config: Mapping[str, Any]) -> None:
    """A world model predicts from its features."""
    seen = observed(shape_of(model.encoder, config["img_size"]), 2, 1)
    latent = model.encode(seen, numbers(2, 1, 2))
    following = model.predict(latent, numbers(2, 1, 2 * config["frameskip"]))
    assert following.visual.shape == latent.visual.shape == (2, 1, model.encoder.num_patches, model.encoder.emb_dim)
    assert following.visual.isfinite().all()


@torch.no_grad()
def check_checkpoint(model: WorldModel, config: Mapping[str, Any], folder: Path) -> None:
    """A checkpoint brings it back."""
    write_model_config(folder, dict(config))
    path = folder / "checkpoints" / "model_latest.safetensors"
    write_checkpoint(path, model, epoch=0, about={"step": 0}, with_encoder=model.encoder.saved_with_model)
    torch.manual_seed(5)  # another process has another state
    loaded, _ = load_for_planning(read_checkpoint(folder), SIZES, EncoderConfig(), torch.device("cpu"))
    seen = observed(shape_of(model.encoder, config["img_size"]), 2)
    assert torch.equal(loaded.encoder(seen), model.encoder(seen)), (
        "saved and loaded, an encoder gives the same features: keep in parameters or buffers what does not follow from "
        "its settings"
    )
