"""The one border between raw units and z-scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalizer:
    """Means and standard deviations of a data set; maps raw values to z-scores and back.

    Raw actions have ``env_action_dim`` entries; a block of ``frameskip`` of them has A = frameskip * env_action_dim
    entries, in time order. Both are accepted wherever actions are.

    Attributes:
        action_mean, action_std: (env_action_dim,) float32, raw units.
        state_mean, state_std: (S,) float32, raw units.
        proprio_mean, proprio_std: (E,) float32, raw units.

    Raises:
        ValueError: If a statistic is not finite, a deviation is not positive, or shapes do not match.
    """

    action_mean: Tensor
    action_std: Tensor
    state_mean: Tensor
    state_std: Tensor
    proprio_mean: Tensor
    proprio_std: Tensor

    def __post_init__(self) -> None:
        for part in ("action", "state", "proprio"):
            mean, std = getattr(self, f"{part}_mean"), getattr(self, f"{part}_std")
            if mean.ndim != 1 or mean.shape != std.shape:
                raise ValueError(
                    f"normalizer: {part}_mean and {part}_std must be vectors of one length, "
                    f"got {tuple(mean.shape)} and {tuple(std.shape)}"
                )
            if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
                raise ValueError(
                    f"normalizer: {part}_mean must be finite and {part}_std finite and positive, got "
                    f"{mean.tolist()} and {std.tolist()}; constant data cannot be z-scored, use normalize_action=false"
                )

    @classmethod
    def fit(cls, actions: Tensor, states: Tensor, proprio: Tensor, *, still: bool = False) -> Normalizer:
        """Measure (rows, env_action_dim), (rows, S) and (rows, E) raw values; deviations are the unbiased ones.

        ``still`` gives entries of states and proprio values that never change a deviation of 1.
        """
        measured = {}
        for part, rows in (("action", actions), ("state", states), ("proprio", proprio)):
            exact = rows.double()  # float32 sums over millions of rows would lose the last digits
            measured[f"{part}_mean"] = exact.mean(0).float()
            std = exact.std(0).float()
            measured[f"{part}_std"] = std.where(std > 0, 1.0) if still and part != "action" else std
        return cls(**measured)

    @classmethod
    def identity(cls, env_action_dim: int, state_dim: int, proprio_dim: int) -> Normalizer:
        """The normaliser that changes nothing, for ``normalize_action=false`` (which governs all three parts)."""
        parts = {"action": env_action_dim, "state": state_dim, "proprio": proprio_dim}
        means = {f"{part}_mean": torch.zeros(size) for part, size in parts.items()}
        return cls(**means, **{f"{part}_std": torch.ones(size) for part, size in parts.items()})

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[float]]) -> Normalizer:
        """Rebuild what ``to_dict`` wrote.

        Raises:
            ValueError: If an entry is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(f"normalizer: expected the entries {sorted(names)}, got {sorted(values)}")
        return cls(**{name: torch.tensor(list(values[name]), dtype=torch.float32) for name in names})

    def to_dict(self) -> dict[str, list[float]]:
        """Plain lists of numbers, for a checkpoint or a JSON file; float32 survives the way there and back."""
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}

    def to(self, device: torch.device | str) -> Normalizer:
        """Copy the statistics to another device; conversions accept tensors of any device, but then copy each time."""
        return Normalizer(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @property
    def env_action_dim(self) -> int:
        """Length of one raw action."""
        return self.action_mean.shape[0]

    def actions_to_z(self, raw: Tensor) -> Tensor:
        """Z-score raw actions or blocks (..., k * env_action_dim), k >= 1; float32."""
        mean, std = self._block_statistics(raw)
        return ((raw - mean) / std).float()

    def actions_to_raw(self, z: Tensor) -> Tensor:
        """Raw units of z-scored actions or blocks (..., k * env_action_dim), in the dtype of ``z``."""
        mean, std = self._block_statistics(z)
        return z * std + mean

    def zero_block(self, frameskip: int) -> Tensor:
        """The z-scored block (frameskip * env_action_dim,) that does nothing in raw units."""
        return self.actions_to_z(torch.zeros(frameskip * self.env_action_dim))

    def proprio_to_z(self, raw: Tensor) -> Tensor:
        """Z-score raw proprio values (..., E); float32."""
        return _to_z(raw, self.proprio_mean, self.proprio_std)

    def states_to_z(self, raw: Tensor) -> Tensor:
        """Z-score raw states (..., S); float32."""
        return _to_z(raw, self.state_mean, self.state_std)

    def _block_statistics(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        repeats, rest = divmod(actions.shape[-1], self.env_action_dim)
        if rest or not repeats:
            raise ValueError(
                f"normalizer: the last dimension of actions must be a multiple of {self.env_action_dim} "
                f"(one raw action), got {tuple(actions.shape)}"
            )
        return self.action_mean.to(actions.device).repeat(repeats), self.action_std.to(actions.device).repeat(repeats)


def _to_z(raw: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    if raw.shape[-1] != mean.shape[0]:
        raise ValueError(f"normalizer: expected (..., {mean.shape[0]}), got {tuple(raw.shape)}")
    return ((raw - mean.to(raw.device)) / std.to(raw.device)).float()
