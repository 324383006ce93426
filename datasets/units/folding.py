"""Raw actions and action blocks: one block is the ``frameskip`` raw actions of one model step, end to end."""

from __future__ import annotations

from torch import Tensor


def fold_actions(actions: Tensor, frameskip: int) -> Tensor:
    """Join every ``frameskip`` actions (..., T * frameskip, a), raw or z-scored, to blocks (..., T, frameskip * a)."""
    return actions.unflatten(-2, (actions.shape[-2] // frameskip, frameskip)).flatten(-2)


def unfold_actions(blocks: Tensor, env_action_dim: int) -> Tensor:
    """Take blocks (..., T, A), raw or z-scored, apart into actions (..., T * frameskip, env_action_dim)."""
    frameskip = blocks.shape[-1] // env_action_dim
    return blocks.unflatten(-1, (frameskip, env_action_dim)).flatten(-3, -2)
