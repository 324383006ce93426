"""What stored latents depend on, so that they are never taken for those of other weights or images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.interfaces import Encoder
from training.latents.cache import FramesToEncode
from utils.moved_classes import former_names

MEANING = {
    "encoder": "another encoder (its weights, sizes or preprocessing)",
    "data": "other trajectories (or another env.dataset.n_rollout)",
    "dtype": "numbers of another type (training.latent_dtype)",
    "arithmetic": "frames encoded in another precision",
    "shape": "frames of another number or size",
}
"""What a difference in each entry of an identity means."""


def identity(frames: FramesToEncode, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what latents depend on, as plain values: see ``MEANING``."""
    return {
        "encoder": encoder_sha256(frames.encoder, settings),
        "data": _data_sha256(frames),
        "dtype": frames.dtype,
        "arithmetic": frames.arithmetic,
        "shape": list(frames.shape),
    }


def encoder_sha256(encoder: Encoder, settings: Mapping[str, Any]) -> str:
    """Hash the class, its settings and every tensor; former names of classes keep latents of then good."""
    said = json.dumps(former_names(dict(settings)), sort_keys=True)
    digest = hashlib.sha256(f"{type(encoder).__name__} {said}".encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        _add(digest, name, tensor)
    return digest.hexdigest()


def _data_sha256(frames: FramesToEncode) -> str:
    """Hash states and actions, which tell trajectories apart; reading all images would take as long as encoding."""
    data = frames.trajectories
    digest = hashlib.sha256(f"{data.name} {data.frame_size} {list(frames.numbers)}{data.images}".encode())
    for number, length in zip(frames.numbers, frames.lengths.tolist(), strict=True):
        _add(digest, "states", torch.as_tensor(data.states[number])[:length])
        _add(digest, "actions", torch.as_tensor(data.actions[number])[:length])
    return digest.hexdigest()


def _add(digest: Any, name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
