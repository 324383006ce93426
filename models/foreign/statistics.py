"""Means and standard deviations that come with the models of other programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.foreign.facts import Facts
from models.foreign.inert_pickle import CheckpointError
from models.foreign.translation import Translation
from utils.reading.json_file import read_json
from utils.reading.opening import FileError

EXPECTED = '{"action": {"mean": [...], "std": [...]}, "proprio": {"mean": [...], "std": [...]}}'


def with_statistics(
    translation: Translation, facts: Facts, found: Mapping[str, Any] | None, source: Path
) -> Translation:
    """Add the statistics that the user names, or else those that came with the model; without any, nothing.

    Those of whole blocks, which differ a little from action to action, become those of one action, and the action
    encoder is changed so that the model computes the same.

    Args:
        translation: Of a model.
        facts: What the user says.
        found: As in ``EXPECTED``, or flat: ``action_mean``, ``action_std``, ...
        source: Where they were found, for messages.

    Raises:
        CheckpointError: If they are not such statistics, or of other lengths than the model's inputs.
    """
    if facts.statistics is not None:
        source = Path(facts.statistics).expanduser()
        try:
            found = read_json(source, dict)
        except (FileError, OSError) as error:
            raise CheckpointError(f"foreign.statistics={source}: {error}") from None
    if found is None:
        return translation
    read = {
        f"{part}_{key}": _numbers(found, part, key, source) for part in ("action", "proprio") for key in ("mean", "std")
    }
    tensors = dict(translation.tensors)
    wanted = tensors["proprio_encoder.patch_embed.weight"].shape[1]
    if len(read["proprio_mean"]) != wanted:
        raise CheckpointError(
            f"{source} has statistics of {len(read['proprio_mean'])} proprio values, the model {wanted}"
        )
    length, weight = translation.config["env"]["env_action_dim"], tensors["action_encoder.patch_embed.weight"]
    if len(read["action_mean"]) == weight.shape[1] != length:
        tensors |= _folded(read, length, weight, tensors["action_encoder.patch_embed.bias"])
    if len(read["action_mean"]) != length:
        raise CheckpointError(
            f"{source} has statistics of {len(read['action_mean'])} action values, the model {length}"
        )
    statistics = {key: [float(each) for each in values] for key, values in read.items()}
    return replace(translation, tensors=tensors, statistics=statistics)


def _folded(read: dict[str, Tensor], length: int, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Make statistics of blocks those of one action, in ``read``; returns the action encoder that takes these.

    Where z = (a - m) / s was the input, (a - m') / s' is now: z = z' s' / s + (m' - m) / s.
    """
    mean, std = (read[f"action_{key}"].double() for key in ("mean", "std"))
    one_mean, one_std = mean.unflatten(0, (-1, length)).mean(0), std.unflatten(0, (-1, length)).mean(0)
    repeats = len(mean) // length
    scale, shift = one_std.repeat(repeats) / std, (one_mean.repeat(repeats) - mean) / std
    read |= {"action_mean": one_mean, "action_std": one_std}
    if weight.is_meta:
        return {}
    kernel = weight.double()[:, :, 0]
    return {
        "action_encoder.patch_embed.weight": (kernel * scale)[..., None].float(),
        "action_encoder.patch_embed.bias": (bias.double() + kernel @ shift).float(),
    }


def _numbers(found: Mapping[str, Any], part: str, key: str, source: Path) -> Tensor:
    group = found.get(part)
    values = group.get(key) if isinstance(group, Mapping) else found.get(f"{part}_{key}")
    usable = isinstance(values, list) and values and all(type(each) in (int, float) for each in values)
    numbers = torch.tensor(values, dtype=torch.float64) if usable else torch.empty(0)
    if not usable or not numbers.isfinite().all() or (key == "std" and not (numbers > 0).all()):
        raise CheckpointError(
            f"{source} has no usable {part} {key}; expected {EXPECTED}: set foreign.statistics=<file>"
        )
    return numbers
